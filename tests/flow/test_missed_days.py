"""Days that ended while no desk was there: which they are, by the records that exist; each once, also where clocks change and where the day's end was set anew."""
from __future__ import annotations

from pathlib import Path

import pytest
from desk_stage import ledger_of

from gekko.desk.closing import missed
from gekko.desk.config import load_settings
from gekko.domain.errors import BadInput
from gekko.domain.money import dec
from gekko.domain.time import HOUR, SECOND, utc
from gekko.ledger.days import NEW_YORK, UTC_DAY, DayEnd, day_end
from gekko.ledger.events import DayClosed, Deposited
from gekko.ledger.journal import Journal
from gekko.ledger.printed import to_plain
from gekko.ledger.statement import statement_of
from gekko.ledger.tally import pack_left


def books(folder: Path, since: str) -> str:
    """A ledger whose account began then."""
    url = ledger_of(folder)
    with Journal.open(url, 'oanda-7') as j: j.append(Deposited(dec('1000')), utc(since))
    return url


def close(url: str, day: str, ends: DayEnd) -> None:
    s = statement_of(url, 'oanda-7', day, ends=ends)
    with Journal.open(url, 'oanda-7') as j: j.append(DayClosed(day, {**to_plain(s), 'books': pack_left(s.left) if s.left else ''}), s.end + SECOND)


@pytest.mark.parametrize(('since', 'now', 'days'), [
    ('2024-03-08T12:00', '2024-03-12T12:00', ['2024-03-08', '2024-03-09', '2024-03-10', '2024-03-11']),      # forward on the 10th
    ('2024-11-01T12:00', '2024-11-05T12:00', ['2024-11-01', '2024-11-02', '2024-11-03', '2024-11-04']),      # back on the 3rd
    ('2024-03-10T21:00:01', '2024-03-11T20:59:59', []), ('2024-03-10T21:00:00', '2024-03-11T21:00:01', ['2024-03-10', '2024-03-11'])])
def test_each_of_the_dealer_s_days_is_found_once(since: str, now: str, days: list[str], tmp_path: Path) -> None:
    url = books(tmp_path, since)
    assert missed(url, 'oanda-7', utc(now), NEW_YORK) == days
    for n, day in enumerate(days):
        close(url, day, NEW_YORK)
        assert missed(url, 'oanda-7', utc(now), NEW_YORK) == days[n + 1:]


def test_a_day_that_failed_between_two_others_is_found_again(tmp_path: Path) -> None:
    url = books(tmp_path, '2024-03-08T12:00')
    for day in ('2024-03-08', '2024-03-10'): close(url, day, UTC_DAY)
    assert missed(url, 'oanda-7', utc('2024-03-12T00:00:01'), UTC_DAY) == ['2024-03-09', '2024-03-11']


def test_another_end_of_the_day_closes_no_day_again(tmp_path: Path) -> None:
    """UTC days until the 11th, then New York's: the first of these is the one that ends after the last record."""
    url = books(tmp_path, '2024-03-08T12:00')
    for day in ('2024-03-08', '2024-03-09', '2024-03-10', '2024-03-11'): close(url, day, UTC_DAY)
    assert missed(url, 'oanda-7', utc('2024-03-13T22:00'), NEW_YORK) == ['2024-03-12', '2024-03-13']


def test_older_days_are_left_to_be_closed_by_hand(tmp_path: Path) -> None:
    assert len(missed(books(tmp_path, '2023-01-01'), 'oanda-7', utc('2024-03-13T01:00'))) == 31


def test_the_setting_is_by_venue_and_a_wrong_one_is_refused() -> None:
    said = load_settings({'GEKKO_DAY_END': 'oanda=17:00 America/New_York'}, None).day_end
    assert (day_end(said, 'oanda-7'), day_end(said, 'coinbase-1'), load_settings({}, None).day_end) == (NEW_YORK, UTC_DAY, 'utc')
    with pytest.raises(BadInput, match='GEKKO_DAY_END: expected utc, new-york or an hour and its zone'): load_settings({'GEKKO_DAY_END': '17:30 UTC'}, None)
    assert NEW_YORK.window('2024-03-10')[1] - NEW_YORK.window('2024-03-10')[0] == 23 * HOUR
