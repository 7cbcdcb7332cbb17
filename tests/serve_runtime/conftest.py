# SPDX-License-Identifier: Apache-2.0
"""The bundled model and a tiny SDXL, each loaded once, and a runner that tests advance tick by tick."""

import json
import logging
from importlib.resources import files

import diffusers
import pytest
import torch
import transformers

from sd_runtime.config import Batching, LiveConfig, ModelConfig, RuntimeConfig
from sd_runtime.engine import device
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.image_task import tasks
from sd_runtime.engine.loader import load
from sd_runtime.engine.sampling import schedulers
from sd_runtime.observability.json_logs import JsonLines
from sd_runtime.observability.observer import Silent
from sd_testkit import fake_cuda


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    """Limit torch to few threads. Small matrices gain nothing from threads, and other programs may use the cores."""
    torch.set_num_threads(1)


class Clock:
    """A clock that changes only when a test sets it."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    """Return log lines of the runtime, in the format of a replica.

    Threads of other tiers may log in this process too.
    """
    caplog.set_level(logging.INFO, "sd_runtime")

    def read():
        told = [each for each in caplog.records if each.name.partition(".")[0] == "sd_runtime"]
        return [json.loads(JsonLines().format(each)) for each in told]

    return read


@pytest.fixture(scope="session")
def model():
    return load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes")))


def unet(**extra):
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        **extra,
    )


@pytest.fixture(scope="session")
def tokenizer():
    return transformers.CLIPTokenizer.from_pretrained(str(files("sd_runtime") / "models/shapes/tokenizer"))


@pytest.fixture(scope="session")
def text_encoder(tokenizer):
    """Return a tiny random CLIP of a class."""

    def build(kind):
        config = transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return kind(config)

    return build


@pytest.fixture(scope="session")
def vae():
    """Return a tiny random VAE with this number of latent channels. Each cell covers eight by eight pixels."""

    def build(channels, **extra):
        return diffusers.AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=channels,
            norm_num_groups=2,
            **extra,
        )

    return build


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory, tokenizer, text_encoder, vae):
    """A random SDXL."""
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=text_encoder(transformers.CLIPTextModel),
        text_encoder_2=text_encoder(transformers.CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )
    folder = tmp_path_factory.mktemp("xl")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def xl_model(xl_folder):
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{xl_folder}")))


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory, tokenizer, text_encoder, vae):
    """A random Stable Diffusion with eight latent channels, distilled to take its guidance as an input."""
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(8),
        text_encoder=text_encoder(transformers.CLIPTextModel),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=16, in_channels=8, out_channels=8, time_cond_proj_dim=32),
        scheduler=diffusers.LCMScheduler(beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("wide")
    pipeline.save_pretrained(folder)
    return load(RuntimeConfig(model=ModelConfig(uri=f"file://{folder}")))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer, text_encoder, vae):
    """A random Stable Diffusion of the smallest possible size."""
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=text_encoder(transformers.CLIPTextModel),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=16),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("tiny")
    pipeline.save_pretrained(folder)
    return folder


class Bench:
    """A runner under test."""

    def __init__(self, model, observer):
        self.model = model
        self.runner = runner(model, observer)
        self.budget = self.runner.budget
        self._prepare = preparation(model, observer)
        self._failed = []

    def join(self, *requests):
        joined = [tasks(request, self.model.family)[0] for request in requests]
        failed = self._prepare(joined)
        self._failed += failed
        for each in joined:
            if each not in [task for task, _ in failed]:
                self.runner.join(each)
        return joined

    def run(self):
        """Tick until all work is done. Return the failures so far, in order."""
        while self.runner.tasks():
            self._failed += self.runner.tick().failed
        failed, self._failed = self._failed, []
        return failed

    def latents(self, *requests):
        """Return the latents of requests that arrive together."""
        joined = self.join(*requests)
        assert self.run() == []
        return [each.trajectory.latents for each in joined]

    def stock(self, request, scheduler=None, **told):
        """Return the result of the pipeline's own call for a request.

        Args:
            request: the request.
            scheduler: the scheduler to use.
            told: additional arguments of the call; encodings replace the prompts.
        """
        pipeline = self.model.pipeline
        own = pipeline.scheduler
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt or None}
        try:
            pipeline.scheduler = scheduler or schedulers.fresh(own, request.scheduler, request.steps)
            return pipeline(
                **({} if "prompt_embeds" in told else texts),
                **told,
                width=request.width,
                height=request.height,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="latent",
            ).images
        finally:
            pipeline.scheduler = own


@pytest.fixture
def bench():
    def build(model, observer=None):
        return Bench(model, observer or Silent())

    return build


@pytest.fixture
def unet_calls():
    """Record the rows of each call of a model's UNet."""
    handles = []

    def count(model):
        rows = []
        hook = lambda _, args, __: rows.append(len(args[0]))  # noqa: E731
        handles.append(model.pipeline.unet.register_forward_hook(hook))
        return rows

    yield count
    for handle in handles:
        handle.remove()


class Counting(Silent):
    """Records its calls."""

    def __init__(self):
        self.loads, self.steps, self.phases, self.outcomes, self.coded = [], [], [], [], [0, 0]

    def load(self, waiting, running):
        self.loads.append((waiting, running))

    def step(self, pictures, rows, seconds):
        self.steps.append((pictures, rows))

    def phase(self, phase, seconds):
        assert seconds >= 0
        self.phases.append(phase)

    def outcome(self, outcome):
        self.outcomes.append(outcome)

    def texts(self, cached, encoded):
        self.coded = [self.coded[0] + cached, self.coded[1] + encoded]


@pytest.fixture
def observer():
    return Counting()


@pytest.fixture
async def engine(model, observer):
    live = LiveConfig(batching=Batching(max_batch_size=4, max_wait_milliseconds=50))
    running = DiffusionEngine(model, live, observer)
    yield running
    running.close()


@pytest.fixture
def cuda(monkeypatch):
    """A simulated CUDA device that the runtime finds on this machine.

    The device follows the runtime's threads, and the test fails on a race.
    """
    found, enter, start = fake_cuda.install(monkeypatch), Device.enter, DiffusionEngine.__init__

    def entered(self, work):
        enter(self, work)
        if work not in {"loading", "noise"}:  # The host generates the noise.
            found.follow()

    def started(self, *given):
        found.leave()  # The thread that loaded the model is now that of the event loop, and it computes nothing.
        start(self, *given)

    monkeypatch.setattr(Device, "enter", entered)
    monkeypatch.setattr(DiffusionEngine, "__init__", started)
    # This setting would order them for the whole process.
    monkeypatch.setattr(Device, "prefer_kernels", lambda _: None)
    monkeypatch.setattr(device, "best", lambda: "cuda")
    yield found
    found.leave()
    assert found.races == []
