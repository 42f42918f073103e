"""What each instruction costs in compute units is what the page says, within a tenth.

``pytest tests/solana/test_solana_units.py --capture=no`` prints the table.
"""

import re
from pathlib import Path

import pytest
from solana_machine import INTERFACE, Machine, digest, node_of, raw, recorded

PAGE = (Path(__file__).parents[2] / "docs" / "solana.md").read_text()
LIMIT = 1_400_000


def measured() -> dict[str, int]:
    """Run every instruction once at least; signatures are added eight at a time."""
    machine: Machine = recorded(10, quorum=10)
    members = sorted((node_of(number) for number in range(10)), key=lambda n: raw(n.address))
    statement, rival = machine.model(), machine.model(model="rival")
    machine.all_well(machine.open_tally(statement), machine.open_tally(rival))
    for part in (members[:8], members[8:]):
        machine.all_well(machine.add_signatures(statement, part))
    for name, of in (("attest", statement), ("close_tally", rival), ("finalise", statement)):
        machine.all_well(machine.with_tally(name, of))
    machine.all_well(machine.publish(members[0]), machine.depart(members[0], 1))
    machine.all_well(machine.anchor(digest("receipts")), machine.create_task(1))
    machine.all_well(machine.of_task("cancel", machine.task_id(1), reason="x" * 256))
    return machine.units


def test_the_page_tells_what_each_instruction_costs() -> None:
    units = measured()
    for name, cost in units.items():
        print(f"| {name} | {cost:,} |")
    assert set(units) == set(INTERFACE["instructions"])
    section = PAGE.split("\n## Cost\n", 1)[1].split("\n## ", 1)[0]
    told = {
        name: int(cost.replace(",", ""))
        for name, cost in re.findall(r"^\| (\w+)[^|]* \| ([\d,]+) \|", section, re.M)
    }
    assert set(told) == set(units)
    for name, cost in units.items():
        assert told[name] * 9 // 10 <= cost <= told[name], name
        assert cost < LIMIT // 5


def test_eight_signatures_are_all_that_travels_in_one_transaction() -> None:
    machine = recorded(10, quorum=10)
    members = [node_of(number) for number in range(9)]
    statement = machine.model()
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, members[:8]))
    with pytest.raises(ValueError, match="does not travel"):
        machine.send(machine.add_signatures(statement, members))
