// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {NodeRegistry} from "./NodeRegistry.sol";

/// @title What each learning task agreed on, who takes part, and what each round did.
/// @notice Holds digests, never data. A task goes Open -> Running -> Finalised, or from Open or Running to Cancelled;
/// nothing ever leaves Finalised or Cancelled. Nodes act by EIP-712 statements that the coordinator relays.
contract TaskRegistry is EIP712 {
    /// @notice Where a task stands. `None` is a task that was never created.
    enum State {
        None,
        Open,
        Running,
        Finalised,
        Cancelled
    }

    /// @notice All that is stored of a task; its history is in the events.
    /// @param coordinator Who created it and alone moves it.
    /// @param state Where it stands.
    /// @param members How many nodes have joined.
    /// @param maxSamples The largest number of samples that a member may claim.
    /// @param minContributors How many members it needs to start.
    /// @param quorum How many members must sign the same final model.
    /// @param rounds How many rounds it runs.
    /// @param lastRound The last recorded round; zero before the first.
    /// @param lastAttempt The attempt at which the last round was recorded.
    /// @param head The chained digest of all records.
    /// @param termsDigest The digest of the agreed terms.
    /// @param rosterDigest The chained digest of all memberships.
    /// @param modelDigest The digest of the final model; zero until finalised.
    struct Task {
        // All that joining reads and writes of them fits into one slot.
        address coordinator;
        State state;
        uint16 members;
        uint64 maxSamples;
        uint16 minContributors;
        uint16 quorum;
        uint32 rounds;
        uint32 lastRound;
        uint32 lastAttempt;
        bytes32 head;
        bytes32 termsDigest;
        bytes32 rosterDigest;
        bytes32 modelDigest;
    }

    /// @notice The last record, as it was made: it must hash to the stored head.
    /// @param previousHead The head before it.
    /// @param attempt The attempt at which the last round was recorded.
    /// @param manifestDigest The digest of its manifest.
    /// @param updatesRoot The Merkle root of its updates.
    struct FinalRound {
        bytes32 previousHead;
        uint32 attempt;
        bytes32 manifestDigest;
        bytes32 updatesRoot;
    }

    /// @notice A node's consent to take part in a task.
    /// @param node The node.
    /// @param samples How many samples it trains on.
    /// @param dataCommitment Its salted commitment to its data.
    /// @param sealingKey The key it is registered with.
    /// @param signature The node's signature of `Membership`.
    struct Joining {
        address node;
        uint64 samples;
        bytes32 dataCommitment;
        bytes32 sealingKey;
        bytes signature;
    }

    /// @notice The longest reason for a cancellation, in bytes.
    uint256 public constant MAX_REASON_LENGTH = 256;

    /// @notice EIP-712 type of a node's consent to take part in a task.
    bytes32 public constant MEMBERSHIP_TYPEHASH = keccak256(
        "Membership(bytes32 taskId,bytes32 termsDigest,address node,uint64 samples,bytes32 dataCommitment,bytes32 sealingKey)"
    );

    /// @notice EIP-712 type of a node's word on the final model; the same digest for all nodes.
    bytes32 public constant MODEL_STATEMENT_TYPEHASH = keccak256(
        "ModelStatement(bytes32 taskId,uint32 round,bytes32 manifestDigest,bytes32 modelDigest,bytes32 metricsDigest)"
    );

    /// @notice The register that tells which nodes exist.
    NodeRegistry public immutable nodeRegistry;

    /// @notice How many tasks each coordinator has created.
    mapping(address coordinator => uint256 count) public tasksCreatedBy;

    /// @notice The samples that each member has committed to; zero for a node that is no member.
    mapping(bytes32 taskId => mapping(address node => uint64 samples)) public samplesOf;

    /// @dev The roster digest is kept xor the terms digest, which is never zero: the first join then changes a slot
    /// instead of filling an empty one, which costs four times as much. Getters and events give it plain.
    mapping(bytes32 taskId => Task task) private _tasks;

    /// @notice A task was created.
    /// @param taskId Its identifier.
    /// @param coordinator Who created it.
    /// @param termsDigest The digest of its terms.
    /// @param rounds How many rounds it runs.
    /// @param minContributors How many members it needs to start.
    /// @param quorum How many members must sign the same final model.
    /// @param maxSamples The largest number of samples that a member may claim.
    event TaskCreated(
        bytes32 indexed taskId,
        address indexed coordinator,
        bytes32 termsDigest,
        uint32 rounds,
        uint16 minContributors,
        uint16 quorum,
        uint64 maxSamples
    );

    /// @notice A node joined a task.
    /// @param taskId The task.
    /// @param node The node.
    /// @param index Its place in the roster, from 0.
    /// @param samples How many samples it trains on.
    /// @param dataCommitment Its salted commitment to its data.
    /// @param sealingKey The key that it can be written to under seal.
    /// @param rosterDigest The chained digest of the roster with it.
    event MemberJoined(
        bytes32 indexed taskId,
        address indexed node,
        uint32 index,
        uint64 samples,
        bytes32 dataCommitment,
        bytes32 sealingKey,
        bytes32 rosterDigest
    );

    /// @notice A task started; its roster is closed.
    /// @param taskId The task.
    /// @param rosterDigest The chained digest of its roster.
    /// @param members How many nodes take part.
    event TaskStarted(bytes32 indexed taskId, bytes32 rosterDigest, uint32 members);

    /// @notice A round was recorded. A later attempt at the same round supersedes an earlier one.
    /// @param taskId The task.
    /// @param round The round, from 1.
    /// @param attempt The attempt, from 1.
    /// @param manifestDigest The digest of its manifest.
    /// @param updatesRoot The Merkle root of its updates.
    /// @param head The chained digest of all records, this one included.
    event RoundRecorded(
        bytes32 indexed taskId,
        uint32 indexed round,
        uint32 attempt,
        bytes32 manifestDigest,
        bytes32 updatesRoot,
        bytes32 head
    );

    /// @notice A quorum of members signed the model of a round.
    /// @param taskId The task.
    /// @param round The round.
    /// @param manifestDigest The digest of its manifest.
    /// @param modelDigest The digest of the model.
    /// @param metricsDigest The digest of the metrics that they signed with it.
    /// @param signers How many members signed.
    event ModelAttested(
        bytes32 indexed taskId,
        uint32 indexed round,
        bytes32 manifestDigest,
        bytes32 modelDigest,
        bytes32 metricsDigest,
        uint32 signers
    );

    /// @notice A task was finalised.
    /// @param taskId The task.
    /// @param modelDigest The digest of the model that a quorum of members signed.
    /// @param metricsDigest The digest of the metrics that they signed with it.
    /// @param head The chained digest of all records.
    /// @param signers How many members signed.
    event TaskFinalised(
        bytes32 indexed taskId, bytes32 modelDigest, bytes32 metricsDigest, bytes32 head, uint32 signers
    );

    /// @notice A task was cancelled.
    /// @param taskId The task.
    /// @param reason Why, in words.
    event TaskCancelled(bytes32 indexed taskId, string reason);

    /// @notice There is no such task.
    /// @param taskId The task.
    error UnknownTask(bytes32 taskId);

    /// @notice Only the coordinator of the task may do this.
    /// @param taskId The task.
    /// @param caller Who tried.
    /// @param coordinator Who may.
    error NotCoordinator(bytes32 taskId, address caller, address coordinator);

    /// @notice The task stands where this cannot be done.
    /// @param taskId The task.
    /// @param state Where it stands.
    error WrongState(bytes32 taskId, State state);

    /// @notice A task needs a digest of terms, a round, two contributors, a quorum of one and one sample at least.
    /// @param termsDigest The digest of terms given.
    /// @param rounds The number of rounds given.
    /// @param minContributors The number of contributors given.
    /// @param quorum The quorum given.
    /// @param maxSamples The largest number of samples given.
    error BadTerms(bytes32 termsDigest, uint32 rounds, uint16 minContributors, uint16 quorum, uint64 maxSamples);

    /// @notice The node is a member already; a membership is never replaced.
    /// @param taskId The task.
    /// @param node The node.
    error AlreadyMember(bytes32 taskId, address node);

    /// @notice The node is not registered with this sealing key.
    /// @param node The node.
    /// @param sealingKey The key given.
    /// @param registered The key registered; zero when the node is not registered.
    error SealingKeyMismatch(address node, bytes32 sealingKey, bytes32 registered);

    /// @notice The number of samples is zero or larger than the task allows.
    /// @param samples The number given.
    /// @param maxSamples The largest number allowed.
    error SamplesOutOfRange(uint64 samples, uint64 maxSamples);

    /// @notice A digest is zero.
    error ZeroDigest();

    /// @notice The statement was signed by somebody else, or over other values.
    /// @param node Who should have signed.
    /// @param signer Whom the signature recovers to.
    error WrongSigner(address node, address signer);

    /// @notice The task has too few members to start.
    /// @param members How many it has.
    /// @param needed How many it needs.
    error TooFewMembers(uint32 members, uint32 needed);

    /// @notice The round neither follows the last record nor supersedes it with a later attempt.
    /// @param round The round given.
    /// @param attempt The attempt given.
    /// @param lastRound The last round recorded.
    /// @param lastAttempt The attempt at which it was recorded.
    error OutOfOrder(uint32 round, uint32 attempt, uint32 lastRound, uint32 lastAttempt);

    /// @notice The task has no such round.
    /// @param round The round given.
    /// @param rounds How many rounds the task runs.
    error TooManyRounds(uint32 round, uint32 rounds);

    /// @notice Some rounds are not recorded yet.
    /// @param lastRound The last round recorded.
    /// @param rounds How many rounds the task runs.
    error RoundsMissing(uint32 lastRound, uint32 rounds);

    /// @notice The last record given does not hash to the stored head.
    /// @param given What it hashes to.
    /// @param head The stored head.
    error HeadMismatch(bytes32 given, bytes32 head);

    /// @notice Too few members signed.
    /// @param signers How many did.
    /// @param quorum How many must.
    error QuorumMissed(uint256 signers, uint16 quorum);

    /// @notice A signature over the final model is not by a member of the task.
    /// @param taskId The task.
    /// @param signer Whom it recovers to.
    error NotMember(bytes32 taskId, address signer);

    /// @notice Signatures must come in strictly increasing order of their signers, so that none counts twice.
    /// @param previous The signer before.
    /// @param signer The signer that should have been larger.
    error SignersNotIncreasing(address previous, address signer);

    /// @notice The reason for the cancellation is too long.
    /// @param length Its length in bytes.
    error ReasonTooLong(uint256 length);

    /// @notice Binds the registry of tasks to a registry of nodes.
    /// @param nodes The registry of nodes.
    constructor(NodeRegistry nodes) EIP712("twopm-flower", "1") {
        nodeRegistry = nodes;
    }

    /// @notice Creates a task; the caller becomes its coordinator.
    /// @param termsDigest The digest of its terms.
    /// @param rounds How many rounds it runs.
    /// @param minContributors How many members it needs to start; at least two.
    /// @param quorum How many members must sign the same final model; at least one.
    /// @param maxSamples The largest number of samples that a member may claim.
    /// @return taskId Its identifier, which no other task on any chain shares.
    function createTask(bytes32 termsDigest, uint32 rounds, uint16 minContributors, uint16 quorum, uint64 maxSamples)
        external
        returns (bytes32 taskId)
    {
        if (termsDigest == bytes32(0) || rounds == 0 || minContributors < 2 || quorum == 0 || maxSamples == 0) {
            revert BadTerms(termsDigest, rounds, minContributors, quorum, maxSamples);
        }
        taskId = keccak256(abi.encode(block.chainid, address(this), msg.sender, tasksCreatedBy[msg.sender]++));
        Task storage task = _tasks[taskId];
        task.coordinator = msg.sender;
        task.minContributors = minContributors;
        task.quorum = quorum;
        task.maxSamples = maxSamples;
        task.rounds = rounds;
        task.state = State.Open;
        task.termsDigest = termsDigest;
        task.rosterDigest = termsDigest;
        emit TaskCreated(taskId, msg.sender, termsDigest, rounds, minContributors, quorum, maxSamples);
    }

    /// @notice Takes nodes into an open task, each by its own signature, in the order given.
    /// @dev Loops over what the caller brings and pays for, never over what is stored.
    /// @param taskId The task.
    /// @param joinings The nodes' consents.
    function join(bytes32 taskId, Joining[] calldata joinings) external {
        Task storage task = _taskOfCaller(taskId);
        if (task.state != State.Open) revert WrongState(taskId, task.state);
        uint64 maxSamples = task.maxSamples;
        bytes32 termsDigest = task.termsDigest;
        bytes32 roster = task.rosterDigest ^ termsDigest;
        uint16 members = task.members;
        for (uint256 i = 0; i < joinings.length; ++i) {
            Joining calldata joining = joinings[i];
            _requireConsent(taskId, termsDigest, maxSamples, joining);
            samplesOf[taskId][joining.node] = joining.samples;
            roster = keccak256(
                abi.encode(roster, joining.node, joining.samples, joining.dataCommitment, joining.sealingKey)
            );
            emit MemberJoined(
                taskId, joining.node, members++, joining.samples, joining.dataCommitment, joining.sealingKey, roster
            );
        }
        task.rosterDigest = roster ^ termsDigest;
        task.members = members;
    }

    /// @notice Closes the roster and starts the rounds.
    /// @param taskId The task.
    function start(bytes32 taskId) external {
        Task storage task = _taskOfCaller(taskId);
        if (task.state != State.Open) revert WrongState(taskId, task.state);
        uint32 needed = task.minContributors > task.quorum ? task.minContributors : task.quorum;
        if (task.members < needed) revert TooFewMembers(task.members, needed);
        task.state = State.Running;
        emit TaskStarted(taskId, task.rosterDigest ^ task.termsDigest, task.members);
    }

    /// @notice Records a round: the next one, or a later attempt at the last one.
    /// @param taskId The task.
    /// @param round The round, from 1.
    /// @param attempt The attempt, from 1.
    /// @param manifestDigest The digest of its manifest.
    /// @param updatesRoot The Merkle root of its updates.
    function recordRound(bytes32 taskId, uint32 round, uint32 attempt, bytes32 manifestDigest, bytes32 updatesRoot)
        external
    {
        Task storage task = _taskOfCaller(taskId);
        if (task.state != State.Running) revert WrongState(taskId, task.state);
        if (manifestDigest == bytes32(0) || updatesRoot == bytes32(0)) revert ZeroDigest();
        if (round > task.rounds) revert TooManyRounds(round, task.rounds);
        uint32 last = task.lastRound;
        bool follows = attempt != 0 && uint256(round) == uint256(last) + 1;
        bool supersedes = round != 0 && round == last && attempt > task.lastAttempt;
        if (!follows && !supersedes) revert OutOfOrder(round, attempt, last, task.lastAttempt);

        task.lastRound = round;
        task.lastAttempt = attempt;
        bytes32 head = _chain(task.head, taskId, round, attempt, manifestDigest, updatesRoot);
        task.head = head;
        emit RoundRecorded(taskId, round, attempt, manifestDigest, updatesRoot, head);
    }

    /// @notice States that a quorum of members signed the model of the last recorded round; the task goes on.
    /// @param taskId The task.
    /// @param last The last record, which must hash to the stored head.
    /// @param modelDigest The digest of the model.
    /// @param metricsDigest The digest of its metrics.
    /// @param signatures Signatures of `ModelStatement` by distinct members, in increasing order of their addresses.
    function attest(
        bytes32 taskId,
        FinalRound calldata last,
        bytes32 modelDigest,
        bytes32 metricsDigest,
        bytes[] calldata signatures
    ) external {
        Task storage task = _taskOfCaller(taskId);
        _requireModel(taskId, task, last, modelDigest, metricsDigest, signatures);
        emit ModelAttested(
            taskId, task.lastRound, last.manifestDigest, modelDigest, metricsDigest, uint32(signatures.length)
        );
    }

    /// @notice Ends a task with the model that a quorum of its members signed.
    /// @param taskId The task.
    /// @param last The last record, which must hash to the stored head.
    /// @param modelDigest The digest of the final model.
    /// @param metricsDigest The digest of its metrics.
    /// @param signatures Signatures of `ModelStatement` by distinct members, in increasing order of their addresses.
    function finalise(
        bytes32 taskId,
        FinalRound calldata last,
        bytes32 modelDigest,
        bytes32 metricsDigest,
        bytes[] calldata signatures
    ) external {
        Task storage task = _taskOfCaller(taskId);
        if (task.state == State.Running && task.lastRound != task.rounds) {
            revert RoundsMissing(task.lastRound, task.rounds);
        }
        _requireModel(taskId, task, last, modelDigest, metricsDigest, signatures);

        task.state = State.Finalised;
        task.modelDigest = modelDigest;
        // There are at most `members`, a uint32, distinct signers.
        emit TaskFinalised(taskId, modelDigest, metricsDigest, task.head, uint32(signatures.length));
    }

    /// @notice Ends a task without a model.
    /// @param taskId The task.
    /// @param reason Why, in at most `MAX_REASON_LENGTH` bytes.
    function cancel(bytes32 taskId, string calldata reason) external {
        Task storage task = _taskOfCaller(taskId);
        if (task.state != State.Open && task.state != State.Running) revert WrongState(taskId, task.state);
        if (bytes(reason).length > MAX_REASON_LENGTH) revert ReasonTooLong(bytes(reason).length);
        task.state = State.Cancelled;
        emit TaskCancelled(taskId, reason);
    }

    /// @notice All that is stored of a task.
    /// @param taskId The task.
    /// @return task The task.
    function getTask(bytes32 taskId) external view returns (Task memory task) {
        task = _tasks[taskId];
        if (task.state == State.None) revert UnknownTask(taskId);
        task.rosterDigest ^= task.termsDigest;
    }

    /// @dev Reverts unless the node may join and has signed that it wants to.
    function _requireConsent(bytes32 taskId, bytes32 termsDigest, uint64 maxSamples, Joining calldata joining)
        private
        view
    {
        address node = joining.node;
        uint64 samples = joining.samples;
        if (samplesOf[taskId][node] != 0) revert AlreadyMember(taskId, node);
        if (samples == 0 || samples > maxSamples) revert SamplesOutOfRange(samples, maxSamples);
        if (joining.dataCommitment == bytes32(0)) revert ZeroDigest();
        // Our own registry, whose address and code are pinned; the caller brings the list and pays for it.
        // slither-disable-next-line calls-loop
        bytes32 registered = nodeRegistry.sealingKeyOf(node);
        if (registered == bytes32(0) || registered != joining.sealingKey) {
            revert SealingKeyMismatch(node, joining.sealingKey, registered);
        }
        bytes32 structHash = keccak256(
            abi.encode(
                MEMBERSHIP_TYPEHASH, taskId, termsDigest, node, samples, joining.dataCommitment, joining.sealingKey
            )
        );
        address signer = ECDSA.recoverCalldata(_hashTypedDataV4(structHash), joining.signature);
        if (signer != node) revert WrongSigner(node, signer);
    }

    /// @dev Reverts unless the task runs and a quorum of its members signed this model of the last recorded round.
    function _requireModel(
        bytes32 taskId,
        Task storage task,
        FinalRound calldata last,
        bytes32 modelDigest,
        bytes32 metricsDigest,
        bytes[] calldata signatures
    ) private view {
        if (task.state != State.Running) revert WrongState(taskId, task.state);
        if (modelDigest == bytes32(0) || metricsDigest == bytes32(0)) revert ZeroDigest();
        uint32 round = task.lastRound;
        bytes32 given = _chain(last.previousHead, taskId, round, last.attempt, last.manifestDigest, last.updatesRoot);
        if (given != task.head) revert HeadMismatch(given, task.head);
        if (signatures.length < task.quorum) revert QuorumMissed(signatures.length, task.quorum);
        bytes32 structHash = keccak256(
            abi.encode(MODEL_STATEMENT_TYPEHASH, taskId, round, last.manifestDigest, modelDigest, metricsDigest)
        );
        _requireMembers(taskId, _hashTypedDataV4(structHash), signatures);
    }

    /// @dev Reverts unless each signature over `digest` is by another member.
    function _requireMembers(bytes32 taskId, bytes32 digest, bytes[] calldata signatures) private view {
        address previous = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = ECDSA.recoverCalldata(digest, signatures[i]);
            if (signer <= previous) revert SignersNotIncreasing(previous, signer);
            if (samplesOf[taskId][signer] == 0) revert NotMember(taskId, signer);
            previous = signer;
        }
    }

    /// @dev The task, or a revert when it does not exist or the caller is not its coordinator.
    function _taskOfCaller(bytes32 taskId) private view returns (Task storage task) {
        task = _tasks[taskId];
        address coordinator = task.coordinator;
        if (coordinator == address(0)) revert UnknownTask(taskId);
        if (coordinator != msg.sender) revert NotCoordinator(taskId, msg.sender, coordinator);
    }

    /// @dev The head after a record.
    function _chain(
        bytes32 previousHead,
        bytes32 taskId,
        uint32 round,
        uint32 attempt,
        bytes32 manifestDigest,
        bytes32 updatesRoot
    ) private pure returns (bytes32) {
        return keccak256(abi.encode(previousHead, taskId, round, attempt, manifestDigest, updatesRoot));
    }
}
