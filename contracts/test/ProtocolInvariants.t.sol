// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {TaskRegistry} from "../src/TaskRegistry.sol";
import {Protocol} from "./Protocol.sol";
import {Signing} from "./Vm.sol";

/// @title The contracts' storage is what the model says, whatever was tried.
contract ProtocolInvariants is Signing {
    Protocol private protocol;

    function setUp() public {
        vm.warp(1_000_000);
        protocol = new Protocol();
        for (uint256 i = 0; i < protocol.NODES(); ++i) {
            protocol.register(i, 1, uint8(1 + (i % 3)), false, false);
        }
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(protocol);
    }

    function invariant_every_task_is_what_the_model_says() public view {
        TaskRegistry tasks = protocol.tasks();
        for (uint256 i = 0; i < protocol.count(); ++i) {
            bytes32 taskId = protocol.taskIds(i);
            TaskRegistry.Task memory stored = tasks.getTask(taskId);
            Protocol.Model memory m = protocol.modelOf(taskId);
            require(stored.coordinator == m.coordinator && uint256(stored.state) == m.state, "coordinator and state");
            require(stored.rounds == m.rounds && stored.lastRound <= m.rounds, "rounds");
            require(stored.lastRound == m.lastRound && stored.lastAttempt == m.lastAttempt, "last record");
            require(stored.head == m.head && stored.rosterDigest == m.roster, "chained digests");
            require(stored.members == m.members && stored.modelDigest == m.model, "members and model");
            require((stored.modelDigest != 0) == (m.state == 3), "a model exactly when finalised");
        }
    }

    function invariant_every_node_is_what_the_model_says() public view {
        for (uint256 i = 0; i < protocol.NODES(); ++i) {
            address node = _node(i);
            require(protocol.nodes().sealingKeyOf(node) == protocol.keyOf(node), "key");
            require(protocol.nodes().nonceOf(node) == protocol.nonceOf(node), "nonce");
            require(protocol.data().versionOf(node, bytes32(uint256(1))) == protocol.versionOf(node), "version");
            for (uint256 j = 0; j < protocol.count(); ++j) {
                bytes32 taskId = protocol.taskIds(j);
                require(protocol.tasks().samplesOf(taskId, node) == protocol.samplesOf(taskId, node), "samples");
            }
        }
    }
}
