"""Time and memory of metrics at full size, beside torch-fidelity and torchmetrics: pytest -m slow -s
tests/metrics/test_speed.py
"""

import os
import subprocess
import sys
import time

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from ldbench.metrics.reconstruction import ssim

SCRIPT = """
import sys, time
from pathlib import Path
import torch

def peak():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])

torch.set_num_threads(2)
who = sys.argv[1]
rng = torch.Generator().manual_seed(0)
mix = torch.randn(2048, 2048, generator=rng) / 2048 ** 0.5
a, b = ((torch.randn(10_000, 2048, generator=rng) @ mix * scale + 0.2).relu() for scale in (1.0, 1.2))
if who == "ldbench":
    from ldbench.metrics.feature_set import Features, gather
    from ldbench.metrics.frechet import frechet_distance
elif who == "torch-fidelity":
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
else:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Precomputed(torch.nn.Module):
        num_features = 2048
        def forward(self, x): return x
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = peak()
started = time.perf_counter(), time.process_time()
if who == "ldbench":
    gaussians = [gather(Features(x), ("normal",)).normal.whole for x in (a, b)]
    gathered = time.perf_counter(), time.process_time()
    value = frechet_distance(*gaussians)
elif who == "torch-fidelity":
    statistics = [fid_features_to_statistics(x.double()) for x in (a, b)]
    gathered = time.perf_counter(), time.process_time()
    value = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
else:
    fid = FrechetInceptionDistance(feature=Precomputed(), input_img_size=(2048,), normalize=False)
    fid = fid.set_dtype(torch.float64)
    for x, real in ((a, True), (b, False)):
        for batch in x.split(1000):
            fid.update(batch, real=real)
    gathered = time.perf_counter(), time.process_time()
    value = fid.compute().item()
ended = time.perf_counter(), time.process_time()
wall, work = ((gathered[i] - started[i], ended[i] - gathered[i]) for i in range(2))
print(f"{value!r} {wall[0]:.2f} {wall[1]:.2f} {sum(work):.2f} {(peak() - before) / 1024:.0f}")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_the_frechet_distance_of_two_sets_of_ten_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_fidelity", reason="needs the extra `fidelity`")
    lines, values = [], {}
    for who in ("ldbench", "torch-fidelity", "torchmetrics"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, who],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
        value, gathering, distance, work, memory = done.stdout.split()
        values[who] = float(value)
        times = f"statistics {gathering:>6} s   distance {distance:>6} s   both {work:>6} s of processor"
        lines.append(f"{who:15} {float(value):.9f}   {times}   {memory:>5} MB more")
    with capsys.disabled():
        print("\n10 000 + 10 000 features of 2048, float64, 2 threads:", *lines, sep="\n  ")
    assert values["ldbench"] == pytest.approx(values["torch-fidelity"], rel=1e-4)
    assert values["ldbench"] == pytest.approx(values["torchmetrics"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(60, 32), (4, 256)])
def test_the_structural_similarity_of_images(count: int, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = torch.Generator().manual_seed(0)
    images, recon = (torch.randint(0, 256, (count, 3, size, size), generator=rng, dtype=torch.uint8) for _ in range(2))
    calls = {
        "ldbench": lambda: ssim(images, recon),
        "torchmetrics": lambda: structural_similarity_index_measure(
            recon.double(), images.double(), data_range=255.0, reduction="none"
        ),
    }
    seconds, values = {}, {}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        values[name] = call()
        seconds[name] = time.perf_counter() - started
    times = ", ".join(f"{name} {1000 * value / count:.1f} ms" for name, value in seconds.items())
    with capsys.disabled():
        print(
            f"\nSSIM of an image of {size} px, one thread: "
            f"{times}, {seconds['torchmetrics'] / seconds['ldbench']:.1f} times as long"
        )
    torch.testing.assert_close(*values.values(), rtol=0, atol=1e-12)
