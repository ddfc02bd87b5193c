"""What a measurement inside another program leaves as it was: settings and random streams of the process, a module."""

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

LOGGERS = ("lightning.pytorch", "lightning.fabric")  # whose level a training of ours sets


@contextmanager
def restored_globals() -> Iterator[None]:
    """Within it, torch computes in its defaults: float32 on the CPU, with gradients, without autocast.

    Afterwards threads, TF32, warnings, deterministic kernels, and the random streams of torch, CUDA, numpy and Python
    are as before.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = matmul.allow_tf32, cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()
    cuda_streams = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        with ExitStack() as within:
            within.enter_context(warnings.catch_warnings())
            within.enter_context(torch.inference_mode(False))
            within.enter_context(torch.enable_grad())
            for kind in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
                within.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                within.enter_context(torch.device("cpu"))
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        matmul.allow_tf32, cudnn.allow_tf32 = tf32
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        settings.fill_uninitialized_memory = filled
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        torch.set_rng_state(streams[0])
        random.setstate(streams[1])
        np.random.set_state(streams[2])
        if cuda_streams is not None:
            torch.cuda.set_rng_state_all(cuda_streams)


@contextmanager
def restored_module(module: nn.Module) -> Iterator[None]:
    """Afterwards the module is what it was: modes, flags of gradients, gradients, and the very tensors it held, on
    their devices; buffers have their values from before.
    """
    modes = [(part, part.training) for part in module.modules()]
    parameters = [
        (part, name, value, value.data, value.grad, None if value.grad is None else value.grad.data)
        for part in module.modules()
        for name, value in part._parameters.items()
        if value is not None
    ]
    trainable = [(value, value.requires_grad) for _, _, value, *_ in parameters]
    buffers = [
        (part, name, value, value.detach().clone())
        for part in module.modules()
        for name, value in part._buffers.items()
        if value is not None
    ]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for part, name, parameter, data, gradient, gradient_data in parameters:
            part._parameters[name] = parameter
            if parameter.data_ptr() != data.data_ptr() or parameter.device != data.device:  # it was moved
                parameter.grad = None
                parameter.data = data
                if gradient is not None and gradient_data is not None:
                    gradient.data = gradient_data
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for part, name, buffer, value in buffers:
                part._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
