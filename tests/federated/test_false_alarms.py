"""One node that cries that a sum is impossible convinces nobody."""

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

LIAR = 0


def test_a_single_claim_of_an_impossible_sum_leaves_the_run_to_the_others(federate):
    federation = federate(rounds=2)

    def cries(deliver, message, index):
        if index == LIAR and message.metadata.message_type == "train":
            error = Error(ErrorCode.MOD_FAILED_PRECONDITION, "ImpossibleSum: trust me")
            return Message(error, reply_to=message)
        return deliver(message)

    federation.make_grid().messages.append(cries)
    federation.run()
    rounds = federation.bundle().rounds
    assert [len(entry.manifest.survivors) for entry in rounds] == [3, 3]
