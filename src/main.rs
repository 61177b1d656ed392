//! The guard's program: parse the command line, hand over.

fn main() -> std::process::ExitCode {
    delta_guard::cli::main()
}
