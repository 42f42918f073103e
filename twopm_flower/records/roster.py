"""The frozen roster of a task: who contributes, with how many samples, under which keys."""

from collections.abc import Sequence

from twopm_flower.errors import RecordError
from twopm_flower.records.chaining import roster_digest
from twopm_flower.records.fields import Address, Digest, Record, Signature, Uint53
from twopm_flower.records.statements import Domain, Membership, Signed


class Member(Record):
    """One member, in the order of joining, with its own signature for it."""

    node: Address
    samples: Uint53
    data_commitment: Digest
    sealing_key: Digest
    signature: Signature

    def signed(self, task_id: str, terms_digest: str) -> Signed[Membership]:
        """Return the membership statement that the signature is for."""
        statement = Membership(
            task_id=task_id,
            terms_digest=terms_digest,
            node=self.node,
            samples=self.samples,
            data_commitment=self.data_commitment,
            sealing_key=self.sealing_key,
        )
        return Signed[Membership](node=self.node, statement=statement, signature=self.signature)


class Roster(Record):
    """The members of a task, in the order of joining; the first one deals the shared key."""

    members: tuple[Member, ...]

    @property
    def digest(self) -> str:
        """The chained digest that the contract computes while members join."""
        return roster_digest(self.members)

    @property
    def dealer(self) -> Member:
        """The first member."""
        return self.members[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The members' addresses, in the order of joining."""
        return tuple(member.node for member in self.members)

    def member(self, node: str) -> Member:
        """Return a member by address.

        Raises
        ------
        RecordError
            Not a member.
        """
        for member in self.members:
            if member.node == node:
                return member
        raise RecordError(f"{node} is not a member of the task")

    def samples_of(self, nodes: Sequence[str]) -> int:
        """Return the summed sample count of some members."""
        return sum(self.member(node).samples for node in nodes)

    def check(self, task_id: str, terms_digest: str, domain: Domain) -> None:
        """Check that members are distinct and that each signed its own membership.

        Raises
        ------
        RecordError
            No members, or one twice.
        SignatureError
            A membership that its node did not sign.
        """
        if not self.members:
            raise RecordError("the roster is empty")
        if len(set(self.nodes)) != len(self.nodes):
            raise RecordError("the roster names a node twice")
        for member in self.members:
            member.signed(task_id, terms_digest).check(domain)
