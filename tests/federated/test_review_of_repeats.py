"""The same order again gets the same answer: nothing is trained or encrypted twice."""

from moments import Moment
from tiny_app import tiny_app

from twopm_flower.federated import wire


def test_a_train_order_shown_again_gets_the_update_that_was_signed_and_no_other(recorded, tmp_path):
    moment = recorded.at("train", 1)
    trained = []

    def note(message, context, content):
        trained.append(message)
        return content

    app = tiny_app({0: note})
    first, node = moment.show(moment.order, tmp_path, app)
    again, _ = Moment(node, moment.order).show(moment.order, tmp_path / "again", app)
    first, again = (wire.parse_train_reply(reply.content) for reply in (first, again))
    assert again.update == first.update
    assert again.frame == first.frame
    assert len(trained) == 1
