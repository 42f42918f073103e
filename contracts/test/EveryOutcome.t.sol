// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Protocol} from "./Protocol.sol";
import {Signing} from "./Vm.sol";

/// @title Random actions get everywhere: the model is not agreed with for want of trying.
contract EveryOutcome is Signing {
    uint256 private constant STEPS = 3000;
    uint256 private _drawn;

    function test_every_action_succeeds_and_is_refused() public {
        vm.warp(1_000_000);
        Protocol protocol = new Protocol();
        for (uint256 i = 0; i < STEPS; ++i) {
            _act(protocol);
        }
        string[9] memory actions =
            ["register", "depart", "publish", "create", "join", "start", "record", "attest", "finalise"];
        for (uint256 i = 0; i < actions.length; ++i) {
            require(protocol.succeeded(actions[i]) > 0, actions[i]);
            require(protocol.succeeded(string.concat(actions[i], " refused")) > 0, actions[i]);
        }
        require(protocol.succeeded("cancel") > 0 && protocol.succeeded("cancel refused") > 0, "cancel");
    }

    function _act(Protocol protocol) private {
        uint256 action = _draw() % 12;
        // The youngest tasks, so that some get to their end.
        uint256 task = protocol.count() == 0 ? 0 : protocol.count() - 1 - (_draw() % 2) % protocol.count();
        if (action == 0) {
            protocol.register(_draw(), _draw(), uint8(_draw()), _draw() % 8 == 0, _draw() % 8 == 0);
        } else if (action == 1) {
            protocol.depart(_draw(), _draw(), _draw() % 2 == 0);
        } else if (action == 2) {
            protocol.publish(_draw(), _draw(), uint8(_draw()), uint8(_draw()), uint8(_draw()));
        } else if (action == 3 && _draw() % 4 == 0) {
            protocol.create(_draw(), uint8(_draw()), uint8(_draw()), uint8(_draw()), uint8(_draw()));
        } else if (action <= 5) {
            protocol.join(task, _draw(), _draw(), _draw(), uint8(_draw()), _draw() % 4 == 0);
        } else if (action == 6) {
            protocol.start(task, _draw());
        } else if (action <= 8) {
            protocol.record(task, _draw(), uint8(_draw()), uint8(_draw()), uint8(_draw()));
        } else if (action <= 10) {
            uint8 signers = _draw() % 2 == 0 ? uint8(63) : uint8(_draw());
            protocol.conclude(
                task, _draw(), signers & _members(protocol, task), _draw() % 2 == 0, uint8(_draw()), _draw() % 8 == 0
            );
        } else if (_draw() % 8 == 0) {
            protocol.cancel(task, _draw(), uint16(_draw()));
        }
    }

    /// @dev The members' bits, most of the time.
    function _members(Protocol protocol, uint256 task) private returns (uint8 bits) {
        if (protocol.count() == 0 || _draw() % 4 == 0) return 63;
        bytes32 taskId = protocol.taskIds(task % protocol.count());
        for (uint256 i = 0; i < protocol.NODES(); ++i) {
            if (protocol.samplesOf(taskId, _node(i)) != 0) bits |= uint8(1 << i);
        }
    }

    function _draw() private returns (uint256) {
        return uint256(keccak256(abi.encode(++_drawn)));
    }
}
