// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @title Which nodes exist, and the key that each can be written to under seal.
/// @notice Every change is an EIP-712 statement signed by the node; anybody may relay it and pay for it.
contract NodeRegistry is EIP712 {
    /// @notice EIP-712 type of a registration.
    bytes32 public constant REGISTRATION_TYPEHASH =
        keccak256("Registration(address node,bytes32 sealingKey,uint256 nonce,uint256 deadline)");

    /// @notice EIP-712 type of a departure.
    bytes32 public constant DEPARTURE_TYPEHASH = keccak256("Departure(address node,uint256 nonce,uint256 deadline)");

    /// @notice The X25519 public key of each registered node; zero for a node that is not registered.
    mapping(address node => bytes32 key) public sealingKeyOf;

    /// @notice The nonce that the node's next statement has to carry.
    mapping(address node => uint256 nonce) public nonceOf;

    /// @notice A node registered, or replaced its key.
    /// @param node The node.
    /// @param sealingKey Its X25519 public key from now on.
    /// @param nonce The nonce that its statement used up.
    event NodeRegistered(address indexed node, bytes32 sealingKey, uint256 nonce);

    /// @notice A node left.
    /// @param node The node.
    /// @param nonce The nonce that its statement used up.
    event NodeLeft(address indexed node, uint256 nonce);

    /// @notice The statement's deadline has passed.
    /// @param deadline The deadline, in seconds since the epoch.
    /// @param timestamp The block's time.
    error DeadlinePassed(uint256 deadline, uint256 timestamp);

    /// @notice The statement was signed by somebody else, or over other values or another nonce.
    /// @param node Who should have signed.
    /// @param signer Whom the signature recovers to.
    error WrongSigner(address node, address signer);

    /// @notice A sealing key of zero stands for "not registered" and cannot be registered.
    /// @param node The node.
    error ZeroSealingKey(address node);

    /// @notice The node is not registered.
    /// @param node The node.
    error NotRegistered(address node);

    /// @notice Sets the EIP-712 domain.
    constructor() EIP712("twopm-flower", "1") {}

    /// @notice Registers a node, or replaces the sealing key of a registered one.
    /// @param node The node.
    /// @param sealingKey Its X25519 public key.
    /// @param deadline The last second at which the statement holds, since the epoch.
    /// @param signature The node's signature of `Registration`.
    function register(address node, bytes32 sealingKey, uint256 deadline, bytes calldata signature) external {
        if (sealingKey == bytes32(0)) revert ZeroSealingKey(node);
        uint256 nonce = nonceOf[node]++;
        _requireStatement(
            node, deadline, keccak256(abi.encode(REGISTRATION_TYPEHASH, node, sealingKey, nonce, deadline)), signature
        );
        sealingKeyOf[node] = sealingKey;
        emit NodeRegistered(node, sealingKey, nonce);
    }

    /// @notice Takes a node off the register. Its memberships of tasks remain.
    /// @param node The node.
    /// @param deadline The last second at which the statement holds, since the epoch.
    /// @param signature The node's signature of `Departure`.
    function depart(address node, uint256 deadline, bytes calldata signature) external {
        if (sealingKeyOf[node] == bytes32(0)) revert NotRegistered(node);
        uint256 nonce = nonceOf[node]++;
        _requireStatement(node, deadline, keccak256(abi.encode(DEPARTURE_TYPEHASH, node, nonce, deadline)), signature);
        delete sealingKeyOf[node];
        emit NodeLeft(node, nonce);
    }

    /// @notice Whether a node is registered.
    /// @param node The node.
    /// @return Whether it has a sealing key.
    function isRegistered(address node) external view returns (bool) {
        return sealingKeyOf[node] != bytes32(0);
    }

    /// @dev Reverts unless `node` signed the statement and its deadline has not passed.
    function _requireStatement(address node, uint256 deadline, bytes32 structHash, bytes calldata signature)
        private
        view
    {
        // A proposer can shift the time by seconds; deadlines are hours away and only bound how long a statement lies about.
        // slither-disable-next-line timestamp
        if (block.timestamp > deadline) revert DeadlinePassed(deadline, block.timestamp);
        address signer = ECDSA.recoverCalldata(_hashTypedDataV4(structHash), signature);
        if (signer != node) revert WrongSigner(node, signer);
    }
}
