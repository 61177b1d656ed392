//! Attacks on training data, whose truth a story knows.

super::methods! {
    /// An attack, with its settings.
    Attack, "attack";
    Badnet(badnet) = "badnet",
    Blend(blend) = "blend",
}

#[cfg(test)]
mod tests;
