"""Specs: written and read back the same; what can't be built is refused with what was expected."""
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.network import architecture, steps
from gekko.forecast.spec import KINDS, LOSSES, SCALERS, ModelSpec, Scaling, digest, from_json, written

NAMES = st.from_regex(r'[a-z][a-z0-9_]{0,8}', fullmatch=True).filter(lambda n: n not in ('y', 'ds', 'unique_id', 'available_mask', 'sample_weight'))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Specs of every type that are accepted."""
    type = draw(st.sampled_from(list(KINDS)))
    kind = KINDS[type]
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    cut = draw(st.integers(0, len(names)))
    loss = draw(st.sampled_from(LOSSES))
    width = draw(st.sampled_from([8, 64, 128]))
    return ModelSpec(
        type=type, input_size=draw(st.integers(16, 512)), horizon=draw(st.integers(2, 96)), hidden=(width,) * draw(st.integers(1, 4)), activation=draw(st.sampled_from(['', *kind.activations])),
        learning_rate=draw(st.floats(1e-6, 0.5)), batch_size=draw(st.integers(1, 4096)), max_steps=draw(st.integers(1, 9999)), epochs=draw(st.integers(0, 99)), patience=draw(st.integers(0, 9)),
        past=tuple(names[:cut]) if kind.past else (), future=tuple(names[cut:]) if kind.future else (), scaler=draw(st.sampled_from(SCALERS)), loss=loss,
        quantiles=(0.05, 0.5, 0.95) if loss == 'quantiles' else (), seed=draw(st.integers(0, 2**31)), options=(('dropout', 0.25),) if 'dropout' in kind.options else ())


@given(spec=specs())
def test_a_spec_survives_paper(spec: ModelSpec) -> None:
    there = json.loads(json.dumps(written(spec)))
    assert from_json(there) == spec
    assert digest(from_json(there)) == digest(spec)
    assert architecture(spec)
    assert steps(spec, 1000) >= 1


@given(spec=specs(), field=st.sampled_from(['type', 'input_size', 'hidden', 'learning_rate', 'past', 'quantiles', 'options', 'scaler', 'seed']),
       junk=st.one_of(st.none(), st.text(max_size=4), st.integers(-5, 0), st.just(float('nan')), st.just([None]), st.just({'a': 1}), st.just(True), st.just([[8]])))
def test_junk_in_a_written_spec_is_bad_input_or_means_something(spec: ModelSpec, field: str, junk: Any) -> None:
    try: read = from_json(written(spec) | {field: junk})
    except BadInput: return
    assert from_json(written(read)) == read


@given(spec=specs(), other=specs())
def test_equal_specs_and_no_others_share_a_digest(spec: ModelSpec, other: ModelSpec) -> None:
    assert (digest(spec) == digest(other)) == (spec == other)


@pytest.mark.parametrize(('changes', 'said'), [
    ({'type': 'prophet'}, 'type of model'), ({'horizon': 0}, 'horizon'), ({'horizon': 2.0}, 'horizon'), ({'horizon': True}, 'horizon'), ({'input_size': 1}, 'input_size'), ({'hidden': (0,)}, 'hidden layers'),
    ({'hidden': (8, 16)}, 'the same width'), ({'learning_rate': 1.5}, 'learning_rate'), ({'learning_rate': 1}, 'learning_rate'), ({'past': ('a', 'a')}, 'each name once'), ({'future': ('y',)}, 'y is the target'),
    ({'past': ('a b',)}, 'names of letters'), ({'loss': 'quantiles'}, 'with the loss'), ({'loss': 'quantiles', 'quantiles': (0.5, 0.1)}, 'ascending'), ({'options': (('dropout', 0.5),)}, 'options of mlp'),
    ({'type': 'patchtst', 'past': ('v',)}, 'patchtst takes no past features'), ({'type': 'patchtst', 'future': ('v',)}, 'patchtst takes no future features'),
    ({'type': 'transformer', 'past': ('v',)}, 'transformer takes no past features: expected mlp, lstm, nhits, nbeatsx'), ({'type': 'patchtst', 'hidden': (12,)}, 'multiple of twice its 4 heads'),
    ({'type': 'lstm', 'options': (('dropout', 1.0),)}, 'option dropout'), ({'type': 'lstm', 'options': (('dropout', 0.1), ('dropout', 0.2))}, 'each once'),
    ({'type': 'nhits', 'options': (('pool', (2, 1)),)}, 'one pool and one downsample'), ({'type': 'nhits', 'input_size': 4, 'options': (('pool', (8, 2, 1)),)}, 'within the window'),
    ({'type': 'nbeatsx', 'horizon': 1}, 'identity stacks'), ({'type': 'patchtst', 'input_size': 4}, 'stride of patchtst')])
def test_what_cannot_be_built_is_refused_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said): replace(ModelSpec(), **changes)


def test_a_scaling_is_finite_and_never_zero() -> None:
    for bad in (0.0, float('nan'), float('inf'), -1.0, 1):
        with pytest.raises(BadInput): Scaling((('y', 0.0, bad),))
    with pytest.raises(BadInput): Scaling((('y', 0.0, 1.0), ('y', 1.0, 1.0)))
