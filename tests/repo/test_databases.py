"""Tests run on both databases. The few that are about SQLite's own file are listed here, each with what stands for it on PostgreSQL."""
import ast
import re

from tree import ROOT

# Deselected by `make postgres`, and by nothing else. A whole file is answered by a whole file.
INSTEAD = {
    'fault/test_charter.py::test_no_ledger_is_no_limits_and_a_broken_one_is_not': 'ledger/test_server.py::test_a_database_of_another_encoding_is_refused',
    'fault/test_charter.py::test_limits_that_cannot_be_read_stop_new_risk_and_are_read_again': 'ledger/test_server.py::test_a_stopped_server_halts_and_resumes',
    'fault/test_queue.py::test_a_full_disk_stops_the_queue_and_not_the_worker': 'ledger/test_server.py::test_a_full_disk_halts_and_the_next_commit_resumes',
    'ledger/test_campaign.py::test_damage_to_rows_is_found_every_time': 'ledger/test_verify_server.py::test_rows_removed_swapped_cut_and_added_are_found',
    'ledger/test_campaign.py::test_damage_to_the_file_is_found_or_changes_nothing': 'ledger/test_verify_server.py::test_raw_bytes_of_the_servers_files',
    'ledger/test_journal.py::test_a_full_disk_halts_and_the_next_commit_resumes': 'ledger/test_server.py::test_a_full_disk_halts_and_the_next_commit_resumes',
    'ledger/test_journal.py::test_a_connection_that_may_not_write_halts_and_resumes': 'ledger/test_server.py::test_rights_that_are_taken_halt_and_resume',
    'ledger/test_journal.py::test_a_write_error_of_the_system_halts_and_resumes': 'ledger/test_server.py::test_a_full_disk_halts_and_the_next_commit_resumes',
    'ledger/test_journal.py::test_a_directory_moved_away_halts_until_it_is_back': 'ledger/test_server.py::test_a_stopped_server_halts_and_resumes',
    'ledger/test_journal.py::test_a_removed_ledger_halts_and_no_empty_one_takes_its_place': 'ledger/test_server.py::test_a_ledger_that_was_dropped_is_not_made_again',
    'ledger/test_journal.py::test_a_place_that_is_no_ledger': 'ledger/test_server.py::test_a_database_of_another_encoding_is_refused',
    'ledger/test_lease.py::test_a_renewal_that_fails_leaves_the_old_deadline': 'ledger/test_server.py::test_a_stopped_server_halts_and_resumes',
    'ledger/test_verify.py': 'ledger/test_verify_server.py',
    'ledger/test_writer.py::test_a_full_disk_is_heard_and_a_flush_of_nothing_new_resumes': 'ledger/test_server.py::test_a_full_disk_halts_and_the_next_commit_resumes',
    'ledger/test_writer.py::test_a_connection_that_may_not_write': 'ledger/test_server.py::test_rights_that_are_taken_halt_and_resume',
    'ledger/test_writer.py::test_a_directory_moved_away': 'ledger/test_writer.py::test_a_server_that_stops_and_starts',
    'ledger/conftest.py': 'ledger/conftest.py',      # the fixture that gives a test both databases, one after the other
}


def marked() -> dict[str, str]:
    """What is marked as being about SQLite's file: place, and the marked lines of the source."""
    out = {}
    for p in sorted((ROOT / 'tests').rglob('*.py')):
        if p.name == 'test_databases.py' or 'mark.sqlite' not in (text := p.read_text(encoding='utf-8')): continue
        name, tree = p.relative_to(ROOT / 'tests').as_posix(), ast.parse(text)
        marks = text.count('mark.sqlite')
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and (n := sum(ast.unparse(d) == 'pytest.mark.sqlite' for d in node.decorator_list)):
                out[f'{name}::{node.name}'], marks = '', marks - n
        if marks: out[name] = text
    return out


def test_what_is_not_run_on_postgresql_is_listed_with_what_stands_for_it() -> None:
    assert marked().keys() == INSTEAD.keys()


def test_what_stands_for_it_exists_and_runs_there() -> None:
    for place in INSTEAD.values():
        file, _, name = place.partition('::')
        text = (ROOT / 'tests' / file).read_text(encoding='utf-8')
        assert place in ('ledger/conftest.py', 'ledger/test_verify_server.py') or re.search(rf'^def {name}\(', text, re.M), place
        assert place == 'ledger/conftest.py' or place not in INSTEAD


def test_the_fixture_that_gives_both_names_both() -> None:
    assert "params=[pytest.param('sqlite', marks=pytest.mark.sqlite), 'postgres']" in marked()['ledger/conftest.py']


def test_every_file_that_makes_a_ledger_is_run_on_postgresql_too() -> None:
    folders = re.findall(r'^LEDGERS := (.*)$', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M)[0].split()
    makes = re.compile(r'\bJournal\b|\bdesk_stage\b|\bstart_desk\b|\bbench_crash\b')
    found = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / 'tests').rglob('test_*.py')) if p.name != 'test_databases.py' and makes.search(p.read_text(encoding='utf-8'))]
    assert len(found) > 40 and [f for f in found if not f.startswith(tuple(f'{x}/' for x in folders))] == []
