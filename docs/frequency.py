#!/usr/bin/env python3
"""Makes the weights of the detector `frequency` out of the published ones: `python3 frequency.py freq_detector.pth frequency.safetensors`.

The file is `helpers/frequency_detector/freq_detector.pth` of the code of Delta-Influence. Needs torch and safetensors of PyPI. Nothing but tensors is unpickled.
"""

import sys

import torch
from safetensors.torch import save_file

if len(sys.argv) != 3:
    sys.exit(__doc__)
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
wanted = [f"{kind}{i}.{what}" for i in range(1, 7) for kind, parts in (("conv", ("weight", "bias")), ("bn", ("weight", "bias", "running_mean", "running_var"))) for what in parts]
wanted += ["fc1.weight", "fc1.bias"]
missing = [name for name in wanted if name not in state]
if missing:
    sys.exit(f"{sys.argv[1]} has no {', '.join(missing)}: it is another network")
save_file({name: state[name].float().contiguous().clone() for name in wanted}, sys.argv[2])
