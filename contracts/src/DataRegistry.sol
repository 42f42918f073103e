// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {NodeRegistry} from "./NodeRegistry.sol";

/// @title Which data nodes committed to, version by version, before anybody trained on them.
/// @notice Holds salted digests, never data. A version is never replaced. Every commitment is an EIP-712 statement
/// signed by the node; anybody may relay it and pay for it.
contract DataRegistry is EIP712 {
    /// @notice EIP-712 type of a commitment to one version of a dataset.
    bytes32 public constant DATA_PUBLICATION_TYPEHASH =
        keccak256("DataPublication(address node,bytes32 dataset,uint32 version,bytes32 commitment,uint64 samples)");

    /// @notice The register that tells which nodes exist.
    NodeRegistry public immutable nodeRegistry;

    /// @notice The latest version of a node's dataset; zero before the first.
    mapping(address node => mapping(bytes32 dataset => uint32 version)) public versionOf;

    /// @notice The salted commitment to a version of a node's dataset; zero for a version that does not exist.
    mapping(address node => mapping(bytes32 dataset => mapping(uint32 version => bytes32 commitment))) public
        commitmentOf;

    /// @notice A node committed to a version of a dataset.
    /// @param node The node.
    /// @param dataset The digest that names the dataset.
    /// @param version The version, from 1.
    /// @param commitment The salted commitment.
    /// @param samples How many samples it commits to.
    event DataPublished(
        address indexed node, bytes32 indexed dataset, uint32 version, bytes32 commitment, uint64 samples
    );

    /// @notice The node is not registered.
    /// @param node The node.
    error NotRegistered(address node);

    /// @notice Versions count from 1 without gaps, and none is replaced.
    /// @param version The version given.
    /// @param expected The version that comes next.
    error WrongVersion(uint32 version, uint32 expected);

    /// @notice A digest is zero.
    error ZeroDigest();

    /// @notice A commitment is to at least one sample.
    error ZeroSamples();

    /// @notice The statement was signed by somebody else, or over other values.
    /// @param node Who should have signed.
    /// @param signer Whom the signature recovers to.
    error WrongSigner(address node, address signer);

    /// @notice Binds the commitments to a registry of nodes.
    /// @param nodes The registry of nodes.
    constructor(NodeRegistry nodes) EIP712("twopm-flower", "1") {
        nodeRegistry = nodes;
    }

    /// @notice Commits a node to the next version of a dataset.
    /// @param node The node.
    /// @param dataset The digest that names the dataset.
    /// @param version The version: one more than the latest.
    /// @param commitment The salted commitment.
    /// @param samples How many samples it commits to.
    /// @param signature The node's signature of `DataPublication`.
    function publish(
        address node,
        bytes32 dataset,
        uint32 version,
        bytes32 commitment,
        uint64 samples,
        bytes calldata signature
    ) external {
        if (!nodeRegistry.isRegistered(node)) revert NotRegistered(node);
        if (dataset == bytes32(0) || commitment == bytes32(0)) revert ZeroDigest();
        if (samples == 0) revert ZeroSamples();
        uint32 expected = versionOf[node][dataset] + 1;
        if (version != expected) revert WrongVersion(version, expected);
        bytes32 structHash =
            keccak256(abi.encode(DATA_PUBLICATION_TYPEHASH, node, dataset, version, commitment, samples));
        address signer = ECDSA.recoverCalldata(_hashTypedDataV4(structHash), signature);
        if (signer != node) revert WrongSigner(node, signer);

        versionOf[node][dataset] = version;
        commitmentOf[node][dataset][version] = commitment;
        emit DataPublished(node, dataset, version, commitment, samples);
    }
}
