//! Attacks on training data, whose truth a story knows.

super::methods! {
    /// An attack, with its settings.
    Attack, "attack";
    Badnet(badnet) = "badnet",
    Blend(blend) = "blend",
    Mislabel(mislabel) = "mislabel",
}

#[cfg(test)]
mod tests;
