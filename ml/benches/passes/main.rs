//! What influence costs, as ratios to one plain pass over the same examples. Run it by `make bench DATA=<cifar10>`.
//!
//! A *plain pass* is forward, backward and the weight gradients of every tracked layer (evaluation mode, summed loss, the same batches, no optimiser step): what
//! one epoch of training cannot do without. Everything is measured in interleaved rounds, each figure beside the plain pass of its own round, so that a machine
//! that slows down slows both. A verdict is cold and whole: a new worker process without factors on disk or pixels in its cache folder's memory, from the job
//! on its standard input to its outcome.
//!
//! Keys: `--data PATH` (default: drawn pictures), `--examples N` (default 5,000; the second set has twice as many), `--rounds N` (default 3),
//! `--fit N` (examples that a verdict fits its factors on; default 500).

mod passes;
mod scene;

use anyhow::{Context, bail};
use passes::Passes;
use scene::Scene;
use std::path::PathBuf;

struct Keys {
    data: Option<PathBuf>,
    examples: u32,
    rounds: usize,
    fit: u32,
}

fn keys() -> anyhow::Result<Keys> {
    let mut keys = Keys {
        data: None,
        examples: 5000,
        rounds: 3,
        fit: 500,
    };
    let mut words = std::env::args().skip(1).filter(|w| w != "--bench"); // cargo's own
    while let Some(key) = words.next() {
        let value = words.next().with_context(|| format!("{key} needs a value"))?;
        match key.as_str() {
            "--data" => keys.data = Some(std::path::absolute(&value)?),
            "--examples" => keys.examples = value.parse().context("--examples")?,
            "--rounds" => keys.rounds = value.parse().context("--rounds")?,
            "--fit" => keys.fit = value.parse().context("--fit")?,
            _ => bail!("unknown key {key}: there are --data, --examples, --rounds, --fit"),
        }
    }
    Ok(keys)
}

/// A figure over the rounds.
struct Row {
    name: String,
    asked: &'static str,
    values: Vec<f64>,
}

impl Row {
    fn new(name: impl Into<String>, asked: &'static str) -> Self {
        Self {
            name: name.into(),
            asked,
            values: Vec::new(),
        }
    }

    fn print(&self) {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        println!(
            "| {:<66} | {:<9} | {median:>8.2} | {:.2} – {:.2} |",
            self.name,
            self.asked,
            sorted[0],
            sorted[sorted.len() - 1]
        );
    }
}

fn main() -> anyhow::Result<()> {
    delta_influence::device::use_huge_pages(); // as the worker does
    let keys = keys()?;
    let folder = tempfile::tempdir()?;
    let sizes = [keys.examples, 2 * keys.examples];
    eprintln!(
        "preparing {} and {} examples, training a victim for a few epochs on the smaller set",
        sizes[0], sizes[1]
    );
    let small = Scene::prepare(&folder.path().join("small"), keys.data.as_deref(), sizes[0])?;
    let checkpoint = small.train(4)?;
    let large = Scene::prepare(&folder.path().join("large"), keys.data.as_deref(), sizes[1])?;

    let mut passes = Passes::new(&small, &checkpoint, keys.fit)?;
    let mut double = Passes::new(&large, &checkpoint, keys.fit)?;
    passes.plain(512)?; // first touch of everything

    let mut scoring = Row::new("scoring pass, original and 50 transformed queries / plain pass", "≤ 2.5");
    let mut fit = Row::new("covariance + Λ / plain pass", "≤ 9");
    let mut verdict = [
        Row::new(format!("cold guard verdict at {} examples / plain pass", sizes[0]), "≤ 2"),
        Row::new(format!("cold guard verdict at {} examples / plain pass", sizes[1]), "less"),
    ];
    let mut memory = [
        Row::new(format!("peak memory of that verdict at {}, MiB", sizes[0]), ""),
        Row::new(format!("peak memory of that verdict at {}, MiB", sizes[1]), "+10 %"),
    ];
    let mut seconds = [
        Row::new(format!("a plain pass over {}, seconds", sizes[0]), ""),
        Row::new(format!("a plain pass over {}, seconds", sizes[1]), ""),
    ];
    for round in 1..=keys.rounds {
        let plain = [passes.plain(usize::MAX)?, double.plain(usize::MAX)?];
        scoring.values.push(passes.scoring()? / plain[0]);
        let first = small.verdict(&checkpoint, keys.fit, &format!("verdict-{round}"))?;
        fit.values.push(passes.factors()? / plain[0]);
        let second = large.verdict(&checkpoint, keys.fit, &format!("verdict-{round}"))?;
        for (at, told) in [first, second].into_iter().enumerate() {
            seconds[at].values.push(plain[at]);
            verdict[at].values.push(told.seconds / plain[at]);
            memory[at].values.push(told.peak_memory as f64 / f64::from(1 << 20));
            eprintln!("round {round}, {} examples: {}", sizes[at], told.words);
        }
    }
    println!("{}, {} rounds", passes.device(), keys.rounds);
    println!("| {:<66} | {:<9} | {:>8} | range |", "figure", "asked", "median");
    println!("|{}|{}|{}|---|", "-".repeat(68), "-".repeat(11), "-".repeat(10));
    let rows = [&scoring, &fit].into_iter().chain(&verdict).chain(&memory).chain(&seconds);
    rows.for_each(Row::print);
    Ok(())
}
