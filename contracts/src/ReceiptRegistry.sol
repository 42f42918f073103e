// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// @title Which batches of receipts were anchored, by whom and when.
/// @notice Holds the Merkle root of each batch, never a receipt. An anchor is never replaced.
contract ReceiptRegistry {
    /// @notice An anchored batch.
    /// @param blockNumber The block it was anchored in; zero when it was not.
    /// @param timestamp That block's time.
    /// @param count How many receipts it has.
    struct Anchor {
        uint64 blockNumber;
        uint64 timestamp;
        uint32 count;
    }

    mapping(address issuer => mapping(bytes32 root => Anchor anchor)) private _anchors;

    /// @notice A batch of receipts was anchored.
    /// @param issuer Who anchored it.
    /// @param root The Merkle root of the batch.
    /// @param count How many receipts it has.
    event ReceiptsAnchored(address indexed issuer, bytes32 indexed root, uint32 count);

    /// @notice The batch is anchored already.
    /// @param issuer Who anchored it.
    /// @param root Its Merkle root.
    error AlreadyAnchored(address issuer, bytes32 root);

    /// @notice The root is zero.
    error ZeroDigest();

    /// @notice A batch has at least one receipt.
    error EmptyBatch();

    /// @notice Anchors a batch of the caller's receipts.
    /// @param root The Merkle root of the batch.
    /// @param count How many receipts it has.
    function anchor(bytes32 root, uint32 count) external {
        if (root == bytes32(0)) revert ZeroDigest();
        if (count == 0) revert EmptyBatch();
        Anchor storage slot = _anchors[msg.sender][root];
        if (slot.blockNumber != 0) revert AlreadyAnchored(msg.sender, root);
        _anchors[msg.sender][root] = Anchor(uint64(block.number), uint64(block.timestamp), count);
        emit ReceiptsAnchored(msg.sender, root, count);
    }

    /// @notice Where an issuer anchored a batch.
    /// @param issuer The issuer.
    /// @param root The Merkle root of the batch.
    /// @return The anchor; all zero when there is none.
    function anchorOf(address issuer, bytes32 root) external view returns (Anchor memory) {
        return _anchors[issuer][root];
    }

    /// @notice Whether an anchored batch of an issuer includes a receipt.
    /// @param issuer The issuer.
    /// @param root The Merkle root of the batch.
    /// @param leaf The double-hashed leaf of the receipt.
    /// @param proof The leaf's Merkle proof, sorted pairs.
    /// @return Whether it does.
    function includes(address issuer, bytes32 root, bytes32 leaf, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return _anchors[issuer][root].blockNumber != 0 && MerkleProof.verifyCalldata(proof, root, leaf);
    }
}
