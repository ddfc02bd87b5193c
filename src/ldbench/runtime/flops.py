"""FlopCounter: the number of floating-point operations of a computation."""

from contextlib import ExitStack
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FlopCounter(TorchDispatchMode):
    """Within it, counts floating-point operations, of backward passes too, in `total`: two for each multiply-add.

    Counts matrix products, convolutions and attention by torch's formulas. Torch's own `FlopCounterMode` tracks modules
    and fails at the gradients of balanced loss terms. Compiled modules run uncompiled within it and compiled
    afterwards: the stance `force_eager` ensures this in torch releases that would otherwise never compile them again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.eager = ExitStack()

    def __enter__(self) -> Any:
        self.eager.enter_context(torch.compiler.set_stance("force_eager"))
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.eager.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        elif func._overloadpacket is ATTENTION:  # on a CPU, where some torch releases lack formulas
            self.total += sdpa_flop_count(*(part.shape for part in args[:3]))
        elif func._overloadpacket is ATTENTION_BACKWARD:
            self.total += sdpa_backward_flop_count(*(part.shape for part in args[:4]))
        return output
