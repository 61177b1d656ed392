use super::*;

fn text(words: &[&str]) -> Vec<Label> {
    words.iter().map(|word| Label::Text((*word).into())).collect()
}

fn numbers(n: &[i64]) -> Vec<Label> {
    n.iter().copied().map(Label::Number).collect()
}

fn names(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Class names, and what each label means.
fn means(labels: Vec<Label>, declared: Option<&[String]>, known: Option<KnownClasses>) -> Result<(Vec<String>, Vec<u32>)> {
    let mut all = WrittenLabels::default();
    let order: Vec<u32> = labels.into_iter().map(|label| all.number(label)).collect();
    let (classes, map) = all.classes(declared, known, Path::new("SET"))?;
    Ok((classes, order.iter().map(|n| map[*n as usize]).collect()))
}

fn fails(labels: Vec<Label>, declared: Option<&[String]>, known: Option<KnownClasses>) -> String {
    means(labels, declared, known).unwrap_err().to_string()
}

#[test]
fn names_are_sorted_and_numbers_are_places() {
    assert_eq!(
        means(text(&["dog", "Cat", "dog"]), None, None).unwrap(),
        (names(&["Cat", "dog"]), vec![1, 0, 1])
    );
    // As text "10" would stand before "2".
    let eleven: Vec<String> = (0..11).rev().map(|n| n.to_string()).collect();
    let (classes, map) = means(text(&eleven.iter().map(String::as_str).collect::<Vec<_>>()), None, None).unwrap();
    assert_eq!((&classes[2], &classes[10]), (&"2".to_owned(), &"10".to_owned()));
    assert_eq!(map, (0..11).rev().collect::<Vec<u32>>());
    assert_eq!(means(numbers(&[1, 0, 1]), None, None).unwrap(), (names(&["0", "1"]), vec![1, 0, 1]));
    // Numbers with zeros in front are names, as folders would be.
    assert_eq!(means(text(&["007", "003"]), None, None).unwrap(), (names(&["003", "007"]), vec![1, 0]));
    assert_eq!(means(text(&["1", "cat"]), None, None).unwrap().0, names(&["1", "cat"]));
}

#[test]
fn numbers_without_names_must_be_whole_and_complete() {
    assert!(fails(numbers(&[1, 2, 3]), None, None).contains("labels up to 3, but no example with the label 0"));
    assert!(fails(numbers(&[0, 9_000_000_000_000_000_000]), None, None).contains("no example with the label 1, 2, 3"));
    for odd in ["-1", "2.0", "1e3"] {
        let told = fails(text(&["0", "1", odd]), None, None);
        assert!(told.contains(&format!("the label {odd}, which is neither")), "{told}");
    }
    assert!(fails(numbers(&[0, -1]), None, None).contains("the label -1"));
    assert!(means(text(&["-1", "cat"]), None, None).is_ok(), "a name like any other");
    let mut mixed = text(&["cat"]);
    mixed.push(Label::Number(3));
    assert!(fails(mixed, None, None).contains("numbers as well: cat and 3"));
}

#[test]
fn known_names_give_the_places() {
    let own = names(&["cat", "ant", "bee"]);
    for known in [KnownClasses::Training(&own), KnownClasses::Listed(&own)] {
        assert_eq!(
            means(text(&["ant", "cat", "bee"]), None, Some(known)).unwrap(),
            (own.clone(), vec![1, 0, 2])
        );
        assert_eq!(means(text(&["2", "0", "1"]), None, Some(known)).unwrap(), (own.clone(), vec![2, 0, 1]));
        assert_eq!(means(numbers(&[2, 0, 1]), None, Some(known)).unwrap().1, [2, 0, 1]);
        assert!(fails(numbers(&[0, 3]), None, Some(known)).contains("the label 3, which is none of the 3 classes"));
        assert!(fails(text(&["ant", "dog"]), None, Some(known)).contains("dog"));
    }
    assert_eq!(means(text(&["ant"]), None, Some(KnownClasses::Training(&own))).unwrap().1, [1]);
    let told = fails(text(&["ant", "dog", "bee"]), None, Some(KnownClasses::Listed(&own)));
    assert!(
        told.contains("data.classes does not name: dog; data.classes names classes that SET does not have: cat"),
        "{told}"
    );
    assert!(fails(numbers(&[0, 1]), None, Some(KnownClasses::Listed(&own))).contains("does not have: bee"));
}

#[test]
fn labels_that_mean_two_things_are_refused() {
    let own = names(&["1", "2", "0"]);
    let told = fails(text(&["0", "1", "2"]), None, Some(KnownClasses::Training(&own)));
    assert!(told.contains("could be names as well as places") && told.contains("JSON lines"), "{told}");
    assert_eq!(means(numbers(&[0, 1, 2]), None, Some(KnownClasses::Training(&own))).unwrap().1, [0, 1, 2]);
    // "3" is no place, so all are names; the same places either way are no question.
    let own = names(&["1", "2", "3"]);
    assert_eq!(
        means(text(&["3", "1", "2"]), None, Some(KnownClasses::Training(&own))).unwrap().1,
        [2, 0, 1]
    );
    let own = names(&["0", "1"]);
    assert_eq!(means(text(&["1", "0"]), None, Some(KnownClasses::Training(&own))).unwrap().1, [1, 0]);
}

#[test]
fn a_declaration_gives_numbers_their_names() {
    let declared = names(&["dog", "ant", "eel"]);
    assert_eq!(means(numbers(&[1, 0]), Some(&declared), None).unwrap(), (declared.clone(), vec![1, 0]));
    let own = names(&["ant", "dog"]);
    assert_eq!(
        means(numbers(&[1, 0]), Some(&declared), Some(KnownClasses::Training(&own))).unwrap(),
        (own.clone(), vec![0, 1])
    );
    assert_eq!(means(text(&["dog"]), Some(&declared), Some(KnownClasses::Training(&own))).unwrap().1, [1]);
    assert!(fails(numbers(&[2]), Some(&declared), Some(KnownClasses::Training(&own))).contains("does not have: eel"));
    assert!(fails(numbers(&[3]), Some(&declared), None).contains("the set's own list of names"));
    assert!(fails(numbers(&[-1]), Some(&declared), None).contains("the label -1"));
}
