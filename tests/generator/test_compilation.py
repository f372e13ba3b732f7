from pathlib import Path

import pytest
import torch
from torch import Tensor

from gitdist.errors import StreamError
from gitdist.generator.compilation import compile_decoder

from_torch_itself = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def decode(codes: Tensor, styles: Tensor) -> Tensor:
    return torch.tanh(codes * styles[:, :1, None, None] + codes.mean((1, 2, 3), keepdim=True))


@pytest.mark.slow
@from_torch_itself
def test_an_image_is_the_same_in_every_batch_and_close_to_what_is_not_compiled() -> None:
    rng = torch.Generator().manual_seed(0)
    codes, styles = torch.randn(20, 4, 6, 6, generator=rng), torch.randn(20, 3, generator=rng)
    compiled = compile_decoder(decode, 8)
    whole = compiled(codes, styles)
    assert whole.shape == codes.shape
    torch.testing.assert_close(whole, decode(codes, styles))
    for part in (slice(0, 1), slice(3, 12), slice(19, 20)):
        assert torch.equal(compiled(codes[part], styles[part]), whole[part])


@from_torch_itself
def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before needs no compiler
    with (
        config.patch({"cpp.cxx": (None, "/nowhere/g++")}),
        pytest.raises(
            StreamError, match="needs a decoder that compiles here, but InvalidCxxCompiler: .* install a C"
        ) as caught,
    ):
        compile_decoder(lambda codes, styles: codes.sin() + styles.sum(), 2)(torch.ones(2, 1, 2, 2), torch.ones(2, 3))
    assert "\n" not in str(caught.value)
