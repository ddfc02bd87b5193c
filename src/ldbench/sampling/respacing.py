"""Which of the counted times a shorter chain keeps.

[0] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672 (section 4)
[1] Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, https://arxiv.org/abs/2010.02502
"""


def kept(
    num_times: int,
    respacing: str,
) -> list[int]:
    """The kept indices, rising, of a respacing in the words of [0].

    `250` keeps 250 evenly, the first and the last among them; `10,15,20` divides the chain into three equal sections and keeps so many of each;
    `ddim50` keeps every k-th from 0 on, for the smallest whole k that leaves 50 [1]. Raises ValueError for what is none of these, or too many.
    """
    if respacing.startswith("ddim"):
        wanted = whole(respacing.removeprefix("ddim"), respacing)
        for stride in range(1, num_times):
            if len(range(0, num_times, stride)) == wanted:
                return list(range(0, num_times, stride))
        raise ValueError(
            f"No whole stride leaves {wanted} of {num_times} times. Choose respacing={wanted}, or another number after ddim."
        )
    counts = [whole(word, respacing) for word in respacing.split(",")]
    size, longer = divmod(num_times, len(counts))
    indices: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (section < longer)
        if not 1 <= count <= length:
            raise ValueError(
                f"Respacing {respacing!r} keeps {count} times of a section that has {length}. Choose at most {length}."
            )
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        place = 0.0
        for _ in range(count):  # the sum is what the official maps round
            indices.append(start + round(place))
            place += stride
        start += length
    return indices


def whole(word: str, respacing: str) -> int:
    """A number in a respacing. Raises ValueError for a word that is none."""
    if not word.strip().isdigit():
        raise ValueError(
            f"Unknown respacing {respacing!r}. Choose a number as 250, one for each section as 10,15,20, or ddim50."
        )
    return int(word)
