//! Attacks on training data, whose truth a story knows.

use super::{Mistake, unless};

super::methods! {
    /// An attack, with its settings.
    Attack, "attack";
    Badnet(badnet) = "badnet",
    Blend(blend) = "blend",
    Mislabel(mislabel) = "mislabel",
    WitchesBrew(witches_brew) = "witches-brew",
    Sig(sig) = "sig",
    Wanet(wanet) = "wanet",
    Smooth(smooth) = "smooth",
    Several(several) = "several",
    None(none) = "none",
}

/// A whole number between two others, the bounds included.
fn between(n: u32, low: u32, high: u32, key: &str) -> Option<Mistake> {
    unless(
        (low..=high).contains(&n),
        key,
        format!("is {n}"),
        format!("take a number from {low} to {high}"),
    )
}

/// Victims and target are two classes.
fn two_classes(victim: Option<&String>, target: &String) -> Option<Mistake> {
    let both = format!("is {target}, which is the victim class too");
    unless(victim != Some(target), "target_class", both, "choose two classes")
}

/// How many pictures are changed.
fn some_poisons(poisons: u32) -> Option<Mistake> {
    unless(poisons > 0, "poisons", "is 0", "set it to the number of training pictures to poison")
}

#[cfg(test)]
mod tests;
