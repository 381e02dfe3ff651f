"""A forecast when things fail: each fault of a provider and each of the bars, under each policy, alone and with another provider behind: what is answered, why, and when."""
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from gekko.compute.breaker import Rest
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback, NoAnswer
from gekko.compute.network import Arrays, Floats, Network
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Provider, Session, load
from gekko.compute.torch import Torch
from gekko.data.bars import FIELDS, Bars
from gekko.domain.errors import BadInput
from gekko.domain.time import HOUR, MINUTE, SystemClock
from gekko.forecast.artefact import Artefact, Lineage, save
from gekko.forecast.calibration import Calibration
from gekko.forecast.confidence import Confidence
from gekko.forecast.conformal import Conformal, Scale
from gekko.forecast.pipeline import Pipeline
from gekko.forecast.policy import Policy, Predicted
from gekko.forecast.spec import ModelSpec

CLOCK, STEP, L, H = SystemClock(), 5 * MINUTE, 16, 4
DEADLINE_S = 0.3
GRACE_S = 0.25      # for what is done after the deadline, and for a machine that is busy with other tests
CALIBRATION = Calibration('close', STEP, Conformal((0.8, 0.95), ((1.0,) * H, (2.0,) * H), 99, True), Scale(8, 24, 1e-6), Confidence((0.0, 1.0), (0.5, 0.8), 0.6, 99), memory=40)


def graph(batch: int, fault: str = '') -> bytes:
    """The last price again; with a fault in it that a price of a trillion wakes: a loop of weeks, more memory than there is, the root of a negative number."""
    y, f = h.make_tensor_value_info('y', T.FLOAT, [batch, L]), h.make_tensor_value_info('forecast', T.FLOAT, [batch, H, 1])
    w = np.zeros((L, H), np.float32)
    w[-1] = 1
    made = [h.make_tensor('w', T.FLOAT, [L, H], w.ravel()), h.make_tensor('s', T.INT64, [3], [batch, H, 1]), h.make_tensor('zero', T.FLOAT, [], [0.0])]
    nodes = [h.make_node('MatMul', ['y', 'w'], ['m'])]
    if fault: nodes += [h.make_node('ReduceMax', ['y'], ['big'], keepdims=0), *FAULTS[fault][0], h.make_node('Mul', ['extra', 'zero'], ['none']), h.make_node('Add', ['m', 'none'], ['sum'])]
    nodes.append(h.make_node('Reshape', ['sum' if fault else 'm', 's'], ['forecast']))
    return bytes(h.make_model(h.make_graph(nodes, 'last', [y], [f], [*made, *(FAULTS[fault][1] if fault else [])]), opset_imports=[h.make_opsetid('', 18)], ir_version=10).SerializeToString())


BODY = h.make_graph([h.make_node('Identity', ['go'], ['on']), h.make_node('Add', ['s', 's'], ['t'])], 'body', [h.make_tensor_value_info('i', T.INT64, []), h.make_tensor_value_info('go', T.BOOL, []), h.make_tensor_value_info('s', T.FLOAT, [])],
                    [h.make_tensor_value_info('on', T.BOOL, []), h.make_tensor_value_info('t', T.FLOAT, [])])
FAULTS = {'hung': ([h.make_node('Relu', ['big'], ['many']), h.make_node('Cast', ['many'], ['n'], to=T.INT64), h.make_node('Loop', ['n', 'yes', 'zero'], ['extra'], body=BODY)], [h.make_tensor('yes', T.BOOL, [], [True])]),
          'memory': ([h.make_node('Relu', ['big'], ['many']), h.make_node('Cast', ['many'], ['n'], to=T.INT64), h.make_node('Reshape', ['n', 'row'], ['shape']),
                      h.make_node('ConstantOfShape', ['shape'], ['filled'], value=h.make_tensor('v', T.FLOAT, [1], [1.0])), h.make_node('ReduceSum', ['filled'], ['extra'], keepdims=0)], [h.make_tensor('row', T.INT64, [1], [1])]),
          'nonsense': ([h.make_node('Sub', ['thousand', 'big'], ['left']), h.make_node('Sqrt', ['left'], ['extra'])], [h.make_tensor('thousand', T.FLOAT, [], [1000.0])])}


def program(batch: int) -> Callable[[Path], None]:
    """The same network as a torch program."""
    import torch

    class Last(torch.nn.Module):
        def forward(self, y: Any) -> Any: return y[:, -1:, None].expand(batch, H, 1) * 1.0

    def put(folder: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.export.save(torch.export.export(Last().eval(), (torch.zeros(batch, L),)), folder / f'batch_{batch}.pt2')
    return put


@pytest.fixture(scope='module')
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp('artefact')
    for b in (1, 8): program(b)(folder)
    programs = {f'batch_{b}.pt2': (folder / f'batch_{b}.pt2').read_bytes() for b in (1, 8)}
    return save(folder / 'made', ModelSpec(type='mlp', input_size=L, horizon=H, scaler='identity'), {f'batch_{b}.onnx': graph(b) for b in (1, 8)} | programs, Lineage('a', 'b', ()), calibration=CALIBRATION.written())


class Breaking:
    """A real provider whose sessions do worse when told: raise, hang, answer NaN or another shape, or run out of memory."""
    def __init__(self, inner: Provider, name: str = '') -> None:
        self.inner, self.name, self.format, self.made_of = inner, name or inner.name, inner.format, inner.made_of
        self.how, self.over, self.runs = '', threading.Event(), 0

    def open(self, data: bytes, network: Network, batch: int) -> Session: return _Broken(self, self.inner.open(data, network, batch))


class _Broken:
    def __init__(self, owner: Breaking, real: Session) -> None: self.owner, self.real = owner, real

    def run(self, inputs: Arrays) -> Sequence[Floats]:
        self.owner.runs += 1
        how = self.owner.how
        if how == 'raised': raise RuntimeError('CUDA error: an illegal memory access was encountered')
        if how == 'hung': self.owner.over.wait(30)
        if how == 'memory': raise MemoryError
        out = self.real.run(inputs)
        return [np.full_like(a, np.nan) for a in out] if how == 'nonsense' else [a[:, :1] for a in out] if how == 'shape' else out

    def stop(self) -> None: self.real.stop()
    def close(self) -> None: self.real.close()


def market(rows: int = 400, symbols: int = 2) -> Bars:
    close = 100 * np.exp(0.002 * np.random.default_rng(1).normal(size=(rows, symbols)).cumsum(axis=0))
    start = STEP * np.arange(rows)
    return Bars(tuple(f'S{j}' for j in range(symbols)), start, start + STEP, close, close * 1.001, close / 1.001, close, np.ones(close.shape))


BARS = market()


@pytest.fixture
def breaking() -> Iterator[Callable[[Provider, str], Breaking]]:
    made: list[Breaking] = []

    def one(inner: Provider, name: str = '') -> Breaking:
        made.append(Breaking(inner, name))
        return made[-1]
    yield one
    for b in made: b.over.set()


def timed(p: Pipeline, bars: Bars) -> tuple[Predicted | Exception, float]:
    begun = time.perf_counter()
    found: Predicted | Exception
    try: found = p.on(bars)
    except (NoAnswer, BadInput) as e: found = e
    return found, time.perf_counter() - begun


@pytest.mark.parametrize('behind', [False, True], ids=['alone', 'another behind'])
@pytest.mark.parametrize('otherwise', ['last', 'flat', 'raise'])
@pytest.mark.parametrize('kind', ['raised', 'hung', 'memory', 'nonsense', 'shape'])
@pytest.mark.parametrize('inner', [Onnx(Device('cpu')), Torch(Device('cpu'))], ids=lambda p: p.name)
def test_a_provider_fails(artefact: Artefact, breaking: Callable[..., Breaking], inner: Provider, kind: str, otherwise: str, behind: bool) -> None:
    """Another answers within the deadline; where there is none, the policy does, and says so."""
    bad, other = breaking(inner, 'first'), Torch(Device('cpu')) if inner.format == 'onnx' else Onnx(Device('cpu'))
    f = Fallback([load(bad, artefact.network, CLOCK), *([load(other, artefact.network, CLOCK)] if behind else [])], CLOCK)
    p = Pipeline(artefact, f, CLOCK, Policy(DEADLINE_S, otherwise, 300.0))
    p.warm(BARS.rows(0, 300))
    good = p.on(BARS.rows(0, 300))
    assert good.source == 'fresh' and good.provider == 'first'
    bad.how = kind
    found, took_s = timed(p, BARS.rows(0, 301))
    assert took_s < DEADLINE_S + GRACE_S, f'{took_s:.3f} s'
    kinds = {'shape': 'nonsense'}.get(kind, kind)
    if behind:
        assert isinstance(found, Predicted) and found.source == 'fresh' and found.provider == other.name and [(a.provider, a.kind) for a in found.attempts] == [('first', kinds)]
        assert [f.mean for f in found.forecasts] == pytest.approx([0.0, 0.0], abs=1e-6)
    elif otherwise == 'raise':
        assert isinstance(found, NoAnswer) and [a.kind for a in found.attempts] == [kinds]
    else:
        assert isinstance(found, Predicted) and found.source == {'last': 'last', 'flat': 'none'}[otherwise] and f'first {kinds}' in found.why and found.provider == '' and found.attempts[0].kind == kinds
        assert found.forecasts == (good.forecasts if otherwise == 'last' else ())
        late, _ = timed(p, BARS.rows(0, 302))      # two bars later the last good one is over
        assert isinstance(late, Predicted) and late.source == 'none'
    f.release()


@pytest.mark.parametrize('kind', sorted(FAULTS))
def test_a_network_fails_in_earnest(tmp_path: Path, kind: str) -> None:
    """A graph that loops for weeks, asks for petabytes, or takes the root of a negative number when a price is absurd; afterwards, with sane prices, it answers again."""
    a = save(tmp_path / 'a', ModelSpec(type='mlp', input_size=L, horizon=H, scaler='identity'), {'batch_1.onnx': graph(1, kind)}, Lineage('a', 'b', ()), calibration=CALIBRATION.written())
    f = Fallback([load(Onnx(Device('cpu')), a.network, CLOCK)], CLOCK, Rest(failures=3, first_s=0.05, most_s=0.05))
    p = Pipeline(a, f, CLOCK, Policy(DEADLINE_S, 'flat'))
    one = market(symbols=1)
    assert p.on(one).source == 'fresh'
    close = one.close.copy()
    close[-1] = 1e15
    found, took_s = timed(p, Bars(one.symbols, one.start, one.end, close, close, close, close, one.volume))
    assert isinstance(found, Predicted) and found.source == 'none' and found.attempts[0].kind == kind and took_s < DEADLINE_S + GRACE_S, (found, took_s)
    deadline = time.monotonic() + 10
    while (again := p.on(one)).source != 'fresh' and time.monotonic() < deadline: time.sleep(0.05)
    assert again.source == 'fresh' and again.of('S0').forecast is not None
    f.release()


def spoilt(how: str) -> Bars:
    fields = {f: getattr(BARS, f).copy() for f in FIELDS}
    if how == 'nan': fields['close'][-1] = np.nan
    if how == 'infinite': fields['close'][-1] = np.inf
    if how == 'zero': fields['close'][-1] = 0
    if how == 'huge': fields['close'][-1] = 1e200
    rows = {'few': slice(-20, None), 'gap': np.r_[0:395, 396:400], 'twice': np.r_[0:400, 399], 'backwards': slice(None, None, -1), 'none': slice(0, 0)}.get(how, slice(None))
    start = BARS.end - HOUR if how == 'long' else BARS.start
    return Bars(BARS.symbols, start[rows], BARS.end[rows], *(x[rows] for x in fields.values()))


@pytest.mark.parametrize('otherwise', ['last', 'flat', 'raise'])
@pytest.mark.parametrize(('how', 'why'), [('nan', 'no bar at'), ('infinite', 'a price of inf'), ('zero', 'a price of 0'), ('huge', r'a price of 1e\+200'), ('few', 'too few rows: 25 needed, 20 there'), ('gap', 'bars are missing before'),
                                          ('twice', 'out of order or twice'), ('backwards', 'out of order or twice'), ('long', 'bars of another length'), ('none', 'one row or more')])
def test_bars_are_bad(artefact: Artefact, how: str, why: str, otherwise: str) -> None:
    """Refused in words or answered by the policy, at once."""
    f = Fallback([load(Onnx(Device('cpu')), artefact.network, CLOCK)], CLOCK)
    p = Pipeline(artefact, f, CLOCK, Policy(DEADLINE_S, otherwise))
    p.warm(BARS)
    found, took_s = timed(p, spoilt(how))
    assert took_s < DEADLINE_S + GRACE_S
    refused = how in ('twice', 'backwards', 'long', 'none') or otherwise == 'raise'
    assert isinstance(found, BadInput) == refused
    assert re.search(why, str(found) if isinstance(found, Exception) else found.why)
    if isinstance(found, Predicted):
        assert found.source in ('none', 'last') and (found.source == 'none' or otherwise == 'last')
        for x in found.forecasts: assert np.isfinite([x.mean, x.low, x.high, x.confidence]).all() and x.ts < BARS.end[-1]
    if isinstance(found, Predicted): assert found.provider == '' and found.attempts == ()      # of such a row nobody is asked
    assert p.on(BARS).source == 'fresh'      # and good bars are forecast afterwards
    f.release()


def test_no_answer_that_is_not_a_number_goes_on(artefact: Artefact) -> None:
    """Finite for float32, but a price that a return can't be taken to: no forecast, and the reason."""
    inner = Onnx(Device('cpu'))

    class Vast(Breaking):
        def open(self, data: bytes, network: Network, batch: int) -> Session:
            real = inner.open(data, network, batch)
            me = self

            class Far:
                def run(self, inputs: Arrays) -> Sequence[Floats]: return [a * 0 + np.float32(3e38) if me.how else a for a in real.run(inputs)]
                def stop(self) -> None: real.stop()
                def close(self) -> None: real.close()
            return Far()
    b = Vast(inner)
    p = Pipeline(artefact, load(b, artefact.network, CLOCK), CLOCK, Policy(5.0, 'flat'))
    p.warm(BARS.rows(0, 300))
    b.how = 'vast'
    said = p.on(BARS.rows(0, 301))
    assert all(np.isfinite([f.mean, f.low, f.high, f.confidence]).all() for f in said.forecasts) and said.of('S0').forecast is not None and said.of('S0').forecast.mean > 1e30
    p.release()


def test_callers_at_once_each_get_an_answer_or_are_told(artefact: Artefact, breaking: Callable[..., Breaking]) -> None:
    """Eight threads while the provider hangs: nobody waits longer than the deadline, nobody gets another's answer."""
    bad = breaking(Onnx(Device('cpu')), 'first')
    p = Pipeline(artefact, load(bad, artefact.network, CLOCK), CLOCK, Policy(DEADLINE_S, 'flat'))
    p.warm(BARS.rows(0, 300))
    bad.how = 'hung'
    found: list[tuple[Predicted | Exception, float]] = []
    threads = [threading.Thread(target=lambda: found.append(timed(p, BARS.rows(0, 301)))) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join(10)
    assert len(found) == 8 and all(s < 2 * DEADLINE_S + GRACE_S for _, s in found)
    assert all(isinstance(x, NoAnswer) or isinstance(x, Predicted) and x.source == 'none' for x, _ in found)
    p.release()


def test_a_deadline_too_short_is_kept(artefact: Artefact) -> None:
    """A microsecond: nobody can answer, nobody is blamed for it, and a fair deadline is answered at once."""
    f = Fallback([load(Onnx(Device('cpu')), artefact.network, CLOCK)], CLOCK)
    for _ in range(5): assert Pipeline(artefact, f, CLOCK, Policy(1e-6, 'flat')).on(BARS).source == 'none'
    assert f.states == {'onnx-cpu': 'closed'}
    assert Pipeline(artefact, f, CLOCK, Policy(5.0, 'flat')).on(BARS).source == 'fresh'
    f.release()


def test_a_cold_pipeline_keeps_its_deadline(artefact: Artefact, breaking: Callable[..., Breaking]) -> None:
    """A slow network and a whole history to catch up with: the forecast comes in time, with calibrated radii and not yet its own, and later calls go on where it stopped."""
    slow = breaking(Onnx(Device('cpu')), 'slow')
    real = slow.open

    def slowly(data: bytes, network: Network, batch: int) -> Session:
        session = real(data, network, batch)

        class Slow:
            def run(self, inputs: Arrays) -> Sequence[Floats]:
                time.sleep(0.01)
                return session.run(inputs)
            def stop(self) -> None: session.stop()
            def close(self) -> None: session.close()
        return Slow()
    slow.open = slowly      # type: ignore[method-assign]
    p = Pipeline(artefact, load(slow, artefact.network, CLOCK), CLOCK, Policy(0.6, 'raise'))
    first, took_s = timed(p, BARS)
    assert isinstance(first, Predicted) and first.source == 'fresh' and took_s < 0.6 + GRACE_S and not first.of('S0').own
    for _ in range(4): last, _ = timed(p, BARS)
    assert isinstance(last, Predicted) and last.of('S0').own and last == p.over(BARS, [-1])[0]
    p.release()


def test_what_a_loaded_network_alone_could_not_do(artefact: Artefact, breaking: Callable[..., Breaking]) -> None:
    """A provider that hangs without a fallback around it would hold the job for ever; the pipeline puts one round it, and releases it too."""
    bad = breaking(Onnx(Device('cpu')), 'first')
    p = Pipeline(artefact, load(bad, artefact.network, CLOCK), CLOCK, Policy(DEADLINE_S, 'raise'))
    bad.how = 'hung'
    found, took_s = timed(p, BARS)
    assert isinstance(found, NoAnswer) and took_s < DEADLINE_S + GRACE_S and found.attempts[0].kind == 'hung'
    p.release()
