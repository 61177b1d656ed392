//! The worker.
fn main() { println!("{} {}", tch::Cuda::is_available(), (tch::Tensor::ones([2, 2], (tch::Kind::Float, tch::Device::Cpu)).matmul(&tch::Tensor::ones([2, 2], (tch::Kind::Float, tch::Device::Cpu)))).sum(tch::Kind::Float).double_value(&[])); }
