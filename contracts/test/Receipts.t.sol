// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ReceiptRegistry} from "../src/ReceiptRegistry.sol";
import {Signing} from "./Vm.sol";

/// @title Any batch can be anchored once by each issuer, and includes its own leaves only.
contract Receipts is Signing {
    ReceiptRegistry private receipts;

    function setUp() public {
        receipts = new ReceiptRegistry();
    }

    function testFuzz_a_batch_is_anchored_once_by_each_issuer(
        address issuer,
        address other,
        bytes32 root,
        uint32 count,
        uint64 number
    ) public {
        vm.assume(issuer != other && root != 0 && count != 0 && number != 0);
        vm.roll(number);
        vm.prank(issuer);
        receipts.anchor(root, count);
        ReceiptRegistry.Anchor memory stored = receipts.anchorOf(issuer, root);
        require(stored.blockNumber == number && stored.count == count && stored.timestamp == block.timestamp);
        require(receipts.anchorOf(other, root).blockNumber == 0);
        vm.expectRevert(abi.encodeWithSelector(ReceiptRegistry.AlreadyAnchored.selector, issuer, root));
        vm.prank(issuer);
        receipts.anchor(root, count);
        vm.prank(other);
        receipts.anchor(root, count);
    }

    function testFuzz_only_leaves_of_an_anchored_batch_are_included(bytes32 left, bytes32 right, bytes32 foreign)
        public
    {
        vm.assume(left != right && foreign != left && foreign != right);
        bytes32 root = left < right ? keccak256(abi.encode(left, right)) : keccak256(abi.encode(right, left));
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = right;
        require(!receipts.includes(address(this), root, left, proof), "not anchored");
        receipts.anchor(root, 2);
        require(receipts.includes(address(this), root, left, proof), "its leaf");
        require(!receipts.includes(address(this), root, foreign, proof), "another leaf");
        require(!receipts.includes(address(1), root, left, proof), "another issuer");
    }
}
