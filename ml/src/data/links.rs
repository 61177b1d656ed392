//! Links inside a tar: which member each one names in the end. Nothing outside the archive is ever looked at.

use super::archive::Link;
use std::collections::BTreeMap;

/// Links followed for one name, as Linux does.
const MOST_HOPS: usize = 40;
/// Names that linked folders may add to an archive: links into one another could otherwise name more than there is memory for.
pub(crate) const MOST_NAMES: usize = 1_000_000;

/// A member as the links see it.
#[derive(Debug)]
pub(crate) enum LinkNode {
    /// Has bytes (or is refused for itself): links may name it.
    File,
    /// Names another member.
    Link(Link),
}

/// What a link gives.
#[derive(Debug, PartialEq)]
pub(crate) enum Given {
    /// The member at this place in the archive, under this name.
    Member(String, usize),
    /// Nothing, for this reason.
    Nothing(String, &'static str),
}

/// The archive's members by name.
pub(crate) struct Links<'a> {
    nodes: BTreeMap<&'a str, (usize, &'a LinkNode)>,
}

enum Place {
    Member(usize),
    Folder(String),
}

impl<'a> Links<'a> {
    /// Of members in the archive's order. Of two of one name the later counts, as when an archive is unpacked.
    pub(crate) fn new(members: impl Iterator<Item = (&'a str, &'a LinkNode)>) -> Self {
        Self {
            nodes: members.enumerate().map(|(n, (name, node))| (name, (n, node))).collect(),
        }
    }

    /// What the link `name` gives: a file, or all files of a folder under the link's name. `None`: more than `most` names.
    pub(crate) fn give(&self, name: &str, most: usize) -> Option<Vec<Given>> {
        let folder = match self.resolve(name) {
            Err(why) => return Some(vec![Given::Nothing(name.into(), why)]),
            Ok(Place::Member(n)) => return Some(vec![Given::Member(name.into(), n)]),
            Ok(Place::Folder(folder)) => folder,
        };
        let mut given = Vec::new();
        for (inside, (_, node)) in self.below(&folder) {
            let rest = &inside[folder.len()..];
            if rest.split('/').any(|part| part.starts_with('.')) {
                continue;
            }
            if given.len() == most {
                return None;
            }
            let own = format!("{name}{rest}");
            given.push(match (node, self.resolve(inside)) {
                (_, Ok(Place::Member(n))) => Given::Member(own, n),
                // One level is enough for data sets, and cannot go round in circles.
                (LinkNode::Link(_), Ok(Place::Folder(_))) => Given::Nothing(own, "a link to a folder within a linked folder"),
                (_, Ok(Place::Folder(_))) => continue,
                (_, Err(why)) => Given::Nothing(own, why),
            });
        }
        Some(given)
    }

    /// Members whose names lie in a folder.
    fn below<'s>(&'s self, folder: &'s str) -> impl Iterator<Item = (&'a str, (usize, &'a LinkNode))> + 's {
        let inside = move |name: &str| name.len() > folder.len() && name.starts_with(folder) && name.as_bytes()[folder.len()] == b'/';
        // '/' is followed by '0': names in the folder stand together.
        let (from, to) = (format!("{folder}/"), format!("{folder}0"));
        self.nodes
            .range::<str, _>((std::ops::Bound::Included(from.as_str()), std::ops::Bound::Excluded(to.as_str())))
            .map(|(name, (n, node))| (*name, (*n, *node)))
            .filter(move |(name, _)| inside(name))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Follow a name through links, folders on the way included.
    fn resolve(&self, name: &str) -> std::result::Result<Place, &'static str> {
        let mut name = name.to_string();
        for _ in 0..MOST_HOPS {
            // The first part of the name that is a link is replaced by what it names.
            let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
            let step = ends.map(|end| &name[..end]).find_map(|front| match self.nodes.get(front) {
                Some((_, LinkNode::Link(link))) => Some((front.len(), link)),
                _ => None,
            });
            match step {
                None => {
                    return match self.nodes.get(name.as_str()) {
                        Some((n, _)) => Ok(Place::Member(*n)),
                        None if self.below(&name).next().is_some() => Ok(Place::Folder(name)),
                        None => Err("a link that leads nowhere in the archive"),
                    };
                }
                Some((_, Link::Outside)) => return Err("a link that leads out of the archive"),
                Some((length, Link::To(target))) => name = format!("{target}{}", &name[length..]),
            }
        }
        Err("a link that leads in a circle")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: &str) -> LinkNode {
        LinkNode::Link(Link::To(target.into()))
    }

    #[test]
    fn links_are_followed_within_the_archive_only() {
        let members = [
            ("store/1.png", LinkNode::File),
            ("store/.hidden.png", LinkNode::File),
            ("store/more/2.png", LinkNode::File),
            ("store/again.png", to("store/1.png")),
            ("store/folder", to("store/more")),
            ("cat/a.png", to("store/1.png")),
            ("cat/b.png", to("cat/a.png")),
            ("dog", to("store")),
            ("cat/c.png", to("dog/more/2.png")),
            ("cat/out.png", LinkNode::Link(Link::Outside)),
            ("cat/gone.png", to("store/3.png")),
            ("cat/x", to("cat/y")),
            ("cat/y", to("cat/x")),
            ("self", to("self/self")),
            ("store0", LinkNode::File),
        ];
        let links = Links::new(members.iter().map(|(name, node)| (*name, node)));
        let one = |name: &str| links.give(name, 10).unwrap();
        let member = |name: &str, n| Given::Member(name.into(), n);
        for (name, n) in [("cat/a.png", 0), ("cat/b.png", 0), ("cat/c.png", 2)] {
            assert_eq!(one(name), [member(name, n)]);
        }
        for (name, why) in [
            ("cat/out.png", "out of the archive"),
            ("cat/gone.png", "nowhere"),
            ("cat/x", "circle"),
            ("self", "circle"),
        ] {
            assert!(
                matches!(&one(name)[..], [Given::Nothing(n, told)] if n == name && told.contains(why)),
                "{name}: {:?}",
                one(name)
            );
        }
        assert_eq!(
            one("dog"),
            [
                member("dog/1.png", 0),
                member("dog/again.png", 0),
                Given::Nothing("dog/folder".into(), "a link to a folder within a linked folder"),
                member("dog/more/2.png", 2),
            ]
        );
        assert_eq!(links.give("dog", 3), None);
    }
}
