//! Where to compute, and how much memory that has taken.

use crate::error::{Error, Result};
use delta_guard_contract::detect::Precision;
use delta_guard_contract::{Code, Device as Wanted, TORCH};
use tch::{Cuda, Device, Kind};

/// How a GPU computes float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// As IEEE says: influence is a small difference of large sums. TensorFloat-32 (ten bits of a product's factors) moved kinships by up to 1.2 %.
    Exact,
    /// Convolutions may use TensorFloat-32, as PyTorch does where nothing is set: training, which the owner's program does in that way too.
    AsPyTorch,
}

/// Set threads and find the device; says what was found. A GPU is told to compute the same twice: a retried or resumed job gives what an undisturbed one
/// would. Operators that have no such form there still run.
///
/// # Errors
/// `Configuration` when a GPU is demanded and libtorch sees none.
pub fn set_up(wanted: Wanted, threads: u32, precision: Gpu) -> Result<(Device, String)> {
    if threads > 0 {
        tch::set_num_threads(threads as i32);
    }
    let gpu = Cuda::is_available();
    match wanted {
        Wanted::Cuda if !gpu => Err(Error::new(
            Code::DeviceMissing,
            "worker.device is `cuda`, but libtorch finds no GPU",
            format!(
                "set worker.device to auto or cpu, or start the worker with LD_LIBRARY_PATH at the lib folder of an installed torch {TORCH} (CUDA build)"
            ),
        )),
        Wanted::Cpu => Ok((Device::Cpu, format!("cpu, {} threads", tch::get_num_threads()))),
        Wanted::Auto | Wanted::Cuda if gpu => {
            compute(precision);
            Ok((Device::Cuda(0), "cuda:0".into()))
        }
        Wanted::Auto | Wanted::Cuda => Ok((Device::Cpu, format!("cpu, {} threads (libtorch finds no GPU)", tch::get_num_threads()))),
    }
}

/// Same results twice, and the precision of convolutions.
fn compute(precision: Gpu) {
    #[allow(unsafe_code, reason = "see the safety comment")]
    // SAFETY: plain setters of libtorch's process-wide settings (context.cpp), called before the job's first operator.
    unsafe {
        delta_guard_cuda_switches(true, precision == Gpu::AsPyTorch);
    }
}

#[allow(unsafe_code, reason = "see the safety comment")]
// SAFETY: the signature is the one in context.cpp.
unsafe extern "C" {
    fn delta_guard_cuda_switches(deterministic: bool, tf32: bool);
}

/// Let libtorch lay large tensors into huge pages where the system allows them (`madvise`, the usual setting): a pass allocates gigabytes a second, and
/// the kernel's work on small pages was up to a fifth of its time. Somebody's own `THP_MEM_ALLOC_ENABLE` stays.
///
/// To be called first in `main`: libtorch reads the variable once, at its first allocation, and no other thread may run while it is set.
pub fn use_huge_pages() {
    const VARIABLE: &str = "THP_MEM_ALLOC_ENABLE";
    if std::env::var_os(VARIABLE).is_none() {
        #[allow(unsafe_code, reason = "see the safety comment")]
        // SAFETY: the callers are `main` functions before their first thread.
        unsafe {
            std::env::set_var(VARIABLE, "1");
        }
    }
}

/// libtorch's name of a precision.
pub fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::F64 => Kind::Double,
    }
}

/// Largest resident size of this process so far, bytes; 0 where the system does not tell.
pub fn peak_memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
