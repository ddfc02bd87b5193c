"""Respacing: which timesteps a shorter diffusion keeps.

[0] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021,
    https://arxiv.org/abs/2102.09672 (section 4)
[1] Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, https://arxiv.org/abs/2010.02502
"""


def kept_indices(
    num_times: int,
    respacing: str,
) -> list[int]:
    """The kept indices, increasing, of a respacing in the notation of [0].

    `250` keeps 250 at equal distances, including the first and the last; `10,15,20` divides the timesteps into three
    equal sections and keeps so many of each; `ddim50` keeps every k-th from 0 on, for the smallest integer k that
    leaves 50 [1]. Raises ValueError for any other format, and for too many.
    """
    if respacing.startswith("ddim"):
        num_kept = parse_count(respacing.removeprefix("ddim"), respacing)
        for stride in range(1, num_times):
            if len(range(0, num_times, stride)) == num_kept:
                return list(range(0, num_times, stride))
        raise ValueError(
            f"No integer stride leaves {num_kept} of {num_times} timesteps. "
            f"Choose respacing={num_kept}, or another number after ddim."
        )
    counts = [parse_count(part, respacing) for part in respacing.split(",")]
    size, longer = divmod(num_times, len(counts))
    indices: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (section < longer)
        if not 1 <= count <= length:
            raise ValueError(
                f"respacing={respacing} keeps {count} timesteps of a section of {length}. Choose 1 to {length}."
            )
        distance = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # the official code rounds the running sum
            indices.append(start + round(position))
            position += distance
        start += length
    return indices


def parse_count(text: str, respacing: str) -> int:
    """A number in a respacing. Raises ValueError for anything else."""
    if not text.strip().isdigit():
        raise ValueError(
            f"Unknown respacing {respacing!r}. Choose a number like 250, one per section like 10,15,20, or ddim50."
        )
    return int(text)
