import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import published_code
import pytest
import reference
from conftest import TINY_MODEL, mostly_thorough, random_parameters

from umt_jax.config import Config, TrainingConfig
from umt_jax.generation import generate
from umt_jax.generation.engines import native, pallas, scan
from umt_jax.model import networks

# Twice around the largest ring (dilation 8), and over several latent frames.
NUM_FRAMES = 6

# Blocks of several samples, which some dilations reach beyond and others do not, and of one.
ENGINES = {
    "scan": scan.ScanEngine(block_samples=5),
    "native": native.NativeEngine(block_samples=5),
    "scan_unblocked": scan.ScanEngine(block_samples=1),
    "native_unblocked": native.NativeEngine(block_samples=1),
    "pallas": pallas.PallasEngine(interpret=True, block_samples=5),
}

# Their codes are others, but the same however they are asked for.
ROUNDED = {
    "native_bfloat16": native.NativeEngine("bfloat16", block_samples=5),
    "native_int8": native.NativeEngine("int8", block_samples=5),
}
and_rounded = pytest.mark.parametrize(
    "engine",
    mostly_thorough([*list(ENGINES)[:2], *ROUNDED, *list(ENGINES)[2:]], every_day=4),
    indirect=True,
)


# Of the others `make test` compares codes and caches, and no more.
@pytest.fixture(scope="module", params=mostly_thorough([*ENGINES], every_day=2))
def engine(request):
    return (ENGINES | ROUNDED)[request.param]


@pytest.fixture(scope="module")
def weights(engine, tiny_parameters):
    return generate.pack(tiny_parameters.decoders, TINY_MODEL, engine)


@pytest.fixture(scope="module")
def scan_weights(tiny_parameters):
    return generate.pack(tiny_parameters.decoders, TINY_MODEL, ENGINES["scan"])


@pytest.fixture
def latents(rng):
    return rng.normal(size=(2, NUM_FRAMES, TINY_MODEL.latent_channels)).astype(np.float32)


def _caches(num_domains, num_streams, config=TINY_MODEL):
    cache = generate.init_cache(config, num_streams)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * num_domains), cache)


def _keys(num_domains, num_streams):
    return jax.random.split(jax.random.key(7), (num_domains, num_streams))


def _generate(engine, weights, latents, *, caches=None, keys=None, temperature=1.0, top_p=None):
    streams = len(latents)
    return generate.generate(
        weights,
        _caches(3, streams) if caches is None else caches,
        latents,
        _keys(3, streams) if keys is None else keys,
        jnp.float32(temperature),
        top_p if top_p is None else jnp.float32(top_p),
        config=TINY_MODEL,
        engine=engine,
    )


def test_cached_logits_equal_the_teacher_forced_pass(
    rng, engine, weights, tiny_networks, tiny_parameters, latents
):
    # Noise that outweighs every logit dictates the codes; what is cached is then that of any codes.
    num_samples = NUM_FRAMES * TINY_MODEL.pool_samples
    codes = rng.integers(256, size=(3, 2, num_samples)).astype(np.uint8)
    dictated = 1e6 * jax.nn.one_hot(np.moveaxis(codes, -1, 0), 256)
    expected = tiny_networks.decode(
        tiny_parameters.decoders, codes, np.broadcast_to(latents, (3, *latents.shape))
    )
    frame = jax.jit(
        lambda caches, conditioning, noise: engine.generate_frame(
            weights.packed, caches, generate.Frame(conditioning, noise), TINY_MODEL
        )
    )
    caches = _caches(3, 2)
    for index in range(NUM_FRAMES):
        conditioning = jax.vmap(
            lambda decoder, index=index: generate.condition(decoder, latents[:, index], TINY_MODEL)
        )(tiny_parameters.decoders)
        samples = slice(index * TINY_MODEL.pool_samples, (index + 1) * TINY_MODEL.pool_samples)
        # The logits themselves show in which of two codes wins: the frame's last code is left free
        # but for a handicap, just below and just above the margin by which the likeliest leads.
        noise = np.asarray(dictated[samples])
        last = np.asarray(expected[:, :, samples.stop - 1])
        order = np.argsort(last, axis=-1)
        lead = np.take_along_axis(last, order[..., -1:], -1) - np.take_along_axis(
            last, order[..., -2:-1], -1
        )
        for factor, winner in ((0.99, order[..., -1]), (1.01, order[..., -2])):
            handicap = -(factor * lead) * (np.arange(256) == order[..., -1:])
            probed = noise.copy()
            probed[-1] = handicap
            _, chosen = frame(caches, conditioning, jnp.asarray(probed, jnp.float32))
            np.testing.assert_array_equal(chosen[-1], winner)
        caches, chosen = frame(caches, conditioning, dictated[samples])
        np.testing.assert_array_equal(np.moveaxis(np.asarray(chosen), 0, -1), codes[..., samples])


def test_greedy_codes_are_the_likeliest_of_the_teacher_forced_pass(
    engine, weights, tiny_networks, tiny_parameters, latents
):
    _, codes = _generate(engine, weights, latents, temperature=0.0)
    logits = tiny_networks.decode(
        tiny_parameters.decoders, codes, np.broadcast_to(latents, (3, *latents.shape))
    )
    chosen = jnp.take_along_axis(logits, codes[..., None].astype(jnp.int32), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, logits.max(axis=-1), rtol=1e-4, atol=1e-4)
    assert len(np.unique(codes)) > 3


def test_greedy_codes_are_those_of_the_published_generator(engine):
    expected = published_code.expected("greedy_codes_1")
    config = published_code.config().model
    decoders = networks.select(published_code.parameters().decoders, [1])
    num_frames = expected.shape[-1] // config.pool_samples
    latents = np.moveaxis(published_code.expected("latent"), 1, -1)[:, :num_frames]
    _, codes = generate.generate(
        generate.pack(decoders, config, engine),
        _caches(1, len(expected), config),
        latents,
        _keys(1, len(expected)),
        jnp.float32(0),
        config=config,
        engine=engine,
    )
    np.testing.assert_array_equal(codes[0], expected)
    assert len(np.unique(expected)) > 10


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_all_engines_give_the_codes_and_the_cache_of_scan(engine, weights, scan_weights, latents):
    expected_caches, expected = _generate(ENGINES["scan_unblocked"], scan_weights, latents)
    caches, codes = _generate(engine, weights, latents)
    np.testing.assert_array_equal(codes, expected)
    for leaf, wanted in zip(jax.tree.leaves(caches), jax.tree.leaves(expected_caches), strict=True):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-4)


def test_a_stream_may_go_on_with_another_engine(engine, weights, scan_weights, latents):
    _, whole = _generate(engine, weights, latents)
    caches, first = _generate(ENGINES["scan"], scan_weights, latents[:, :1])
    _, rest = _generate(engine, weights, latents[:, 1:], caches=caches)
    np.testing.assert_array_equal(np.concatenate([first, rest], axis=-1), whole)


# Of one sample the first attempts are within the nucleus, of another outside; of 0.05 most are.
@pytest.mark.parametrize("temperature, top_p", [(1.0, 0.9), (0.5, 0.5), (1.0, 0.05), (0.0, 0.9)])
def test_all_engines_give_the_codes_of_scan_from_the_nucleus(
    engine, weights, scan_weights, latents, temperature, top_p
):
    cut = {"temperature": temperature, "top_p": top_p}
    _, expected = _generate(ENGINES["scan_unblocked"], scan_weights, latents, **cut)
    _, codes = _generate(engine, weights, latents, **cut)
    np.testing.assert_array_equal(codes, expected)


def test_every_code_is_the_draw_from_the_nucleus_of_the_teacher_forced_pass(
    engine, weights, tiny_networks, tiny_parameters, latents
):
    temperature, top_p = 0.8, 0.6
    _, codes = _generate(engine, weights, latents, temperature=temperature, top_p=top_p)
    logits = np.asarray(
        tiny_networks.decode(
            tiny_parameters.decoders, codes, np.broadcast_to(latents, (3, *latents.shape))
        ),
        np.float64,
    )
    codes = np.asarray(codes)
    num_samples = codes.shape[-1]
    draw = jax.jit(generate.gumbel_noise, static_argnums=2)
    noise = np.asarray(draw(_keys(3, 2), np.zeros((3, 2), np.uint32), num_samples))
    num_outside = 0
    for domain, stream, sample in np.ndindex(*codes.shape):
        row = logits[domain, stream, sample]
        scores = row + temperature * noise[sample, domain, stream]
        kept, _ = reference.nucleus(row, temperature, top_p)
        num_outside += not kept[scores.argmax()]
        assert codes[domain, stream, sample] == np.where(kept, scores, -np.inf).argmax()
    assert num_outside > 0.2 * codes.size


@and_rounded
def test_a_nucleus_of_all_probability_gives_the_codes_of_no_nucleus(engine, weights, latents):
    np.testing.assert_array_equal(
        _generate(engine, weights, latents, top_p=1.0)[1], _generate(engine, weights, latents)[1]
    )


@and_rounded
@pytest.mark.parametrize("top_p", [1e-3, 1e-30])
def test_the_smallest_nucleus_is_the_likeliest_code(engine, weights, latents, top_p):
    _, greedy = _generate(engine, weights, latents, temperature=0.0)
    _, codes = _generate(engine, weights, latents, top_p=top_p)
    np.testing.assert_array_equal(codes, greedy)


@and_rounded
@pytest.mark.parametrize(
    "chunks, top_p", mostly_thorough([((1, 5), None), ((1, 1, 3, 1), None), ((3, 3), 0.7)])
)
def test_chunks_give_the_codes_of_the_whole(engine, weights, latents, chunks, top_p):
    _, whole = _generate(engine, weights, latents, top_p=top_p)
    caches, parts, start = None, [], 0
    for frames in chunks:
        caches, codes = _generate(
            engine, weights, latents[:, start : start + frames], caches=caches, top_p=top_p
        )
        parts.append(codes)
        start += frames
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)


@and_rounded
@pytest.mark.parametrize("top_p", mostly_thorough([None, 0.7]))
def test_a_stream_in_a_batch_gives_the_codes_it_gives_alone(engine, weights, latents, top_p):
    _, batch = _generate(engine, weights, latents, top_p=top_p)
    _, alone = _generate(engine, weights, latents[1:], keys=_keys(3, 2)[:, 1:], top_p=top_p)
    np.testing.assert_array_equal(batch[:, 1:], alone)


@and_rounded
def test_a_restarted_stream_begins_anew_and_leaves_the_others_alone(engine, weights, latents):
    _, whole = _generate(engine, weights, latents)
    # A number of frames after which no ring stands at its beginning.
    caches, _ = _generate(engine, weights, latents[:, :1])
    caches = jax.tree.map(jnp.copy, generate.restart(caches, 0, TINY_MODEL))
    continued = np.stack([latents[0, :5], latents[1, 1:]])
    _, codes = _generate(engine, weights, continued, caches=caches)
    np.testing.assert_array_equal(codes[:, 0], whole[:, 0, :50])
    np.testing.assert_array_equal(codes[:, 1], whole[:, 1, 10:])


@pytest.mark.thorough
def test_sampled_codes_follow_the_models_distribution(tiny_networks, tiny_parameters):
    # The first code of many streams, which differ in their keys alone.
    latents = np.ones((4000, 1, TINY_MODEL.latent_channels), np.float32)
    decoders = networks.select(tiny_parameters.decoders, [0])
    _, codes = _generate(
        ENGINES["scan"],
        generate.pack(decoders, TINY_MODEL, ENGINES["scan"]),
        latents,
        caches=_caches(1, 4000),
        keys=_keys(1, 4000),
        temperature=0.5,
    )
    logits = tiny_networks.decode_one(
        networks.select(tiny_parameters.decoders, 0), np.zeros((1, 10), np.int32), latents[:1]
    )
    expected = jax.nn.softmax(logits[0, 0] / 0.5)
    drawn = np.bincount(np.asarray(codes)[0, :, 0], minlength=256) / 4000
    # Expected distance for 4,000 draws is sqrt(2 p / (pi n)) / 2 summed over codes, under 0.1.
    assert 0.5 * np.abs(drawn - expected).sum() < 0.12


@pytest.mark.thorough
@pytest.mark.parametrize("block_samples", [1, 5])
@pytest.mark.parametrize("taps", [3, 4])
def test_decoders_with_more_taps_generate_the_likeliest_codes_of_the_teacher_forced_pass(
    latents, taps, block_samples
):
    config = Config(
        domains=("A", "B"),
        model=dataclasses.replace(TINY_MODEL, decoder_taps=taps),
        training=TrainingConfig(segment_samples=60),
    )
    nets = networks.Networks(config)
    decoders = random_parameters(nets).decoders
    engine = scan.ScanEngine(block_samples=block_samples)
    _, codes = generate.generate(
        generate.pack(decoders, config.model, engine),
        _caches(2, len(latents), config.model),
        latents,
        _keys(2, len(latents)),
        jnp.float32(0),
        config=config.model,
        engine=engine,
    )
    logits = nets.decode(decoders, codes, np.broadcast_to(latents, (2, *latents.shape)))
    np.testing.assert_array_equal(codes, np.argmax(logits, axis=-1))


@pytest.mark.parametrize("engine", ["native", "pallas"])
def test_engines_that_know_two_taps_say_which_one_knows_more(tiny_parameters, engine):
    config = dataclasses.replace(TINY_MODEL, decoder_taps=3)
    with pytest.raises(ValueError, match=f"{engine} plays .* two taps; .* 3 .* engine=scan"):
        generate.pack(tiny_parameters.decoders, config, ENGINES[engine])
