// Two switches of libtorch that its C interface (torch-sys) does not have. See device.rs.
#include <ATen/Context.h>

extern "C" void delta_guard_cuda_switches(bool deterministic, bool tf32) noexcept {
  auto &context = at::globalContext();
  context.setDeterministicCuDNN(deterministic);
  // Where an operator has no deterministic form a warning is all: refusing it would refuse the network.
  context.setDeterministicAlgorithms(deterministic, /*warn_only=*/true);
  context.setDeterministicFillUninitializedMemory(false);
  context.setAllowTF32CuDNN(tf32);
}
