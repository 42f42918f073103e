// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {DataRegistry} from "../src/DataRegistry.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {TaskRegistry} from "../src/TaskRegistry.sol";
import {Signing} from "./Vm.sol";

/// @title A statement holds for what was signed, once, in time, on its chain and for its contract alone.
contract Statements is Signing {
    uint256 private constant GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    NodeRegistry private nodes;
    DataRegistry private data;

    function setUp() public {
        nodes = new NodeRegistry();
        data = new DataRegistry(nodes);
    }

    function testFuzz_a_registration_is_taken_once(uint256 number, bytes32 sealingKey, uint64 deadline, uint64 time)
        public
    {
        vm.assume(sealingKey != 0 && time <= deadline);
        vm.warp(time);
        bytes memory signature = _registration(number, address(nodes), sealingKey, 0, deadline);
        nodes.register(_node(number), sealingKey, deadline, signature);
        require(nodes.sealingKeyOf(_node(number)) == sealingKey && nodes.nonceOf(_node(number)) == 1);
        // The same bytes recover to somebody else once the nonce is used up.
        try nodes.register(_node(number), sealingKey, deadline, signature) {
            revert("replayed");
        } catch (bytes memory reason) {
            require(bytes4(reason) == NodeRegistry.WrongSigner.selector, "replay");
        }
    }

    function testFuzz_a_registration_ends_with_its_deadline(uint256 number, uint64 deadline, uint64 late) public {
        vm.assume(late > deadline);
        bytes memory signature = _registration(number, address(nodes), "key", 0, deadline);
        vm.warp(late);
        vm.expectRevert(abi.encodeWithSelector(NodeRegistry.DeadlinePassed.selector, deadline, late));
        nodes.register(_node(number), "key", deadline, signature);
        vm.warp(deadline);
        nodes.register(_node(number), "key", deadline, signature);
    }

    function testFuzz_a_statement_holds_on_one_chain(uint256 number, uint64 chain) public {
        vm.assume(chain != block.chainid && chain != 0);
        bytes memory here = _registration(number, address(nodes), "key", 0, block.timestamp);
        // A chain that splits off keeps code and storage, and has another number.
        vm.chainId(chain);
        try nodes.register(_node(number), "key", block.timestamp, here) {
            revert("taken on another chain");
        } catch (bytes memory reason) {
            require(bytes4(reason) == NodeRegistry.WrongSigner.selector, "another chain");
        }
        bytes memory there = _registration(number, address(nodes), "key", 0, block.timestamp);
        nodes.register(_node(number), "key", block.timestamp, there);
    }

    function testFuzz_a_statement_holds_for_one_contract(uint256 number, bytes32 sealingKey) public {
        vm.assume(sealingKey != 0);
        bytes memory signature = _registration(number, address(data), sealingKey, 0, block.timestamp);
        try nodes.register(_node(number), sealingKey, block.timestamp, signature) {
            revert("taken by another contract");
        } catch (bytes memory reason) {
            require(bytes4(reason) == NodeRegistry.WrongSigner.selector, "another contract");
        }
    }

    function testFuzz_a_statement_has_one_signature(uint256 number) public {
        bytes memory signature = _registration(number, address(nodes), "key", 0, block.timestamp);
        (bytes32 r, bytes32 s, uint8 v) = _split(signature);
        bytes32 other = bytes32(GROUP_ORDER - uint256(s));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, other));
        nodes.register(_node(number), "key", block.timestamp, abi.encodePacked(r, other, v == 27 ? 28 : 27));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 64));
        nodes.register(_node(number), "key", block.timestamp, abi.encodePacked(r, s));
        nodes.register(_node(number), "key", block.timestamp, signature);
    }

    function testFuzz_nobody_can_be_named_who_did_not_sign(address node, bytes32 r, uint128 s, bool odd) public {
        bytes memory noise = abi.encodePacked(r, uint256(s), odd ? uint8(27) : uint8(28));
        try nodes.register(node, "key", block.timestamp, noise) {
            revert("taken");
        } catch {
            require(nodes.sealingKeyOf(node) == 0 && nodes.nonceOf(node) == 0);
        }
    }

    function testFuzz_versions_follow_each_other(uint256 number, bytes32 dataset, uint32 version) public {
        vm.assume(dataset != 0 && version != 3);
        bytes memory signature = _registration(number, address(nodes), "key", 0, block.timestamp);
        nodes.register(_node(number), "key", block.timestamp, signature);
        _publish(number, dataset, 1);
        _publish(number, dataset, 2);
        vm.expectRevert(abi.encodeWithSelector(DataRegistry.WrongVersion.selector, version, 3));
        data.publish(_node(number), dataset, version, "data", 1, "");
    }

    function testFuzz_identifiers_never_collide(address first, address second, uint64 chain, uint8 times) public {
        vm.assume(first != second && chain != block.chainid && chain != 0);
        TaskRegistry tasks = new TaskRegistry(nodes);
        TaskRegistry elsewhere = new TaskRegistry(nodes);
        bytes32[] memory ids = new bytes32[](5);
        ids[0] = _create(tasks, first);
        for (uint256 i = 0; i <= times % 4; ++i) {
            ids[1] = _create(tasks, first);
        }
        ids[2] = _create(tasks, second);
        ids[3] = _create(elsewhere, first);
        vm.chainId(chain);
        TaskRegistry split = new TaskRegistry(nodes);
        ids[4] = _create(split, first);
        for (uint256 i = 0; i < ids.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                require(ids[i] != ids[j], "the same identifier");
            }
        }
        require(ids[4] == keccak256(abi.encode(chain, address(split), first, 0)), "made of other parts");
    }

    function _create(TaskRegistry tasks, address coordinator) private returns (bytes32) {
        vm.prank(coordinator);
        return tasks.createTask("terms", 1, 2, 1, 1);
    }

    function _publish(uint256 number, bytes32 dataset, uint32 version) private {
        bytes32 structHash = keccak256(
            abi.encode(data.DATA_PUBLICATION_TYPEHASH(), _node(number), dataset, version, bytes32("data"), uint64(1))
        );
        data.publish(_node(number), dataset, version, "data", 1, _signature(_key(number), address(data), structHash));
    }

    function _registration(uint256 number, address verifying, bytes32 sealingKey, uint256 nonce, uint256 deadline)
        private
        view
        returns (bytes memory)
    {
        bytes32 typehash = nodes.REGISTRATION_TYPEHASH();
        return _signature(
            _key(number), verifying, keccak256(abi.encode(typehash, _node(number), sealingKey, nonce, deadline))
        );
    }

    function _split(bytes memory signature) private pure returns (bytes32 r, bytes32 s, uint8 v) {
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
    }
}
