// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {DataRegistry} from "../src/DataRegistry.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {TaskRegistry} from "../src/TaskRegistry.sol";
import {Signing} from "./Vm.sol";

/// @title A model of what the contracts should do, run beside them on random actions.
/// @notice Every action may come from anybody, at any time, with any values. The model says whether it has to succeed;
/// a difference fails at once.
contract Protocol is Signing {
    uint256 public constant NODES = 6;
    uint256 public constant COORDINATORS = 2;

    struct Model {
        address coordinator;
        uint256 state;
        uint256 rounds;
        uint256 minContributors;
        uint256 quorum;
        uint256 maxSamples;
        uint256 lastRound;
        uint256 lastAttempt;
        bytes32 previousHead;
        bytes32 head;
        bytes32 manifest;
        bytes32 roster;
        bytes32 model;
        uint256 members;
    }

    NodeRegistry public immutable nodes;
    TaskRegistry public immutable tasks;
    DataRegistry public immutable data;

    bytes32[] public taskIds;
    mapping(bytes32 => Model) private models;
    mapping(bytes32 => mapping(address => uint256)) public samplesOf;
    mapping(address => bytes32) public keyOf;
    mapping(address => uint256) public nonceOf;
    mapping(address => uint256) public versionOf;
    mapping(string => uint256) public succeeded;

    constructor() {
        nodes = new NodeRegistry();
        tasks = new TaskRegistry(nodes);
        data = new DataRegistry(nodes);
    }

    function modelOf(bytes32 taskId) external view returns (Model memory) {
        return models[taskId];
    }

    function count() external view returns (uint256) {
        return taskIds.length;
    }

    function register(uint256 who, uint256 signer, uint8 key, bool replay, bool late) external {
        address node = _node(who % NODES);
        bytes32 sealingKey = bytes32(uint256(key % 4));
        uint256 nonce = nonceOf[node];
        uint256 signed = replay && nonce > 0 ? nonce - 1 : nonce;
        uint256 deadline = late ? block.timestamp - 1 : block.timestamp;
        bytes memory signature = _signature(
            _key(_signer(who, signer)),
            address(nodes),
            keccak256(abi.encode(nodes.REGISTRATION_TYPEHASH(), node, sealingKey, signed, deadline))
        );
        bool allowed = sealingKey != 0 && !late && signed == nonce && _signer(who, signer) == who % NODES;
        try nodes.register(node, sealingKey, deadline, signature) {
            _expect(allowed, "register");
            keyOf[node] = sealingKey;
            nonceOf[node] = nonce + 1;
        } catch {
            _expect(!allowed, "register refused");
        }
    }

    function depart(uint256 who, uint256 signer, bool late) external {
        address node = _node(who % NODES);
        uint256 deadline = late ? block.timestamp - 1 : block.timestamp;
        bytes memory signature = _signature(
            _key(_signer(who, signer)),
            address(nodes),
            keccak256(abi.encode(nodes.DEPARTURE_TYPEHASH(), node, nonceOf[node], deadline))
        );
        bool allowed = keyOf[node] != 0 && !late && _signer(who, signer) == who % NODES;
        try nodes.depart(node, deadline, signature) {
            _expect(allowed, "depart");
            delete keyOf[node];
            ++nonceOf[node];
        } catch {
            _expect(!allowed, "depart refused");
        }
    }

    function publish(uint256 who, uint256 signer, uint8 version, uint8 commitment, uint8 samples) external {
        address node = _node(who % NODES);
        bytes32 committed = bytes32(uint256(commitment % 3));
        uint32 number = uint32(versionOf[node] + version % 3);
        uint64 rows = samples % 3;
        bytes memory signature = _signature(
            _key(_signer(who, signer)),
            address(data),
            keccak256(abi.encode(data.DATA_PUBLICATION_TYPEHASH(), node, bytes32(uint256(1)), number, committed, rows))
        );
        bool allowed = keyOf[node] != 0 && committed != 0 && rows != 0 && number == versionOf[node] + 1
            && _signer(who, signer) == who % NODES;
        try data.publish(node, bytes32(uint256(1)), number, committed, rows, signature) {
            _expect(allowed, "publish");
            versionOf[node] = number;
        } catch {
            _expect(!allowed, "publish refused");
        }
    }

    function create(uint256 who, uint8 rounds, uint8 minContributors, uint8 quorum, uint8 maxSamples) external {
        Model memory m;
        m.coordinator = _coordinator(who);
        m.state = 1;
        m.rounds = rounds % 4;
        m.minContributors = minContributors % 4;
        m.quorum = quorum % 4;
        m.maxSamples = maxSamples % 8;
        bool allowed = m.rounds != 0 && m.minContributors >= 2 && m.quorum != 0 && m.maxSamples != 0;
        vm.prank(m.coordinator);
        try tasks.createTask(
            keccak256("terms"), uint32(m.rounds), uint16(m.minContributors), uint16(m.quorum), uint64(m.maxSamples)
        ) returns (
            bytes32 taskId
        ) {
            _expect(allowed, "create");
            _expect(models[taskId].state == 0, "a new identifier");
            models[taskId] = m;
            taskIds.push(taskId);
        } catch {
            _expect(!allowed, "create refused");
        }
    }

    function join(uint256 task, uint256 caller, uint256 who, uint256 twist, uint8 samples, bool staleKey) external {
        if (taskIds.length == 0) return;
        bytes32 taskId = _task(task);
        (TaskRegistry.Joining[] memory joinings, bool allowed, bytes32 roster) =
            _pair(taskId, who, twist, samples % 9, staleKey && twist % 4 == 1);
        Model storage m = models[taskId];
        allowed = allowed && m.state == 1 && _coordinator(taskId, caller) == m.coordinator;
        vm.prank(_coordinator(taskId, caller));
        try tasks.join(taskId, joinings) {
            _expect(allowed, "join");
            for (uint256 i = 0; i < 2; ++i) {
                samplesOf[taskId][joinings[i].node] = joinings[i].samples;
            }
            m.members += 2;
            m.roster = roster;
        } catch {
            _expect(!allowed, "join refused");
        }
    }

    function start(uint256 task, uint256 caller) external {
        if (taskIds.length == 0) return;
        bytes32 taskId = _task(task);
        Model storage m = models[taskId];
        bool enough = m.members >= m.minContributors && m.members >= m.quorum;
        bool allowed = m.state == 1 && enough && _coordinator(taskId, caller) == m.coordinator;
        vm.prank(_coordinator(taskId, caller));
        try tasks.start(taskId) {
            _expect(allowed, "start");
            m.state = 2;
        } catch {
            _expect(!allowed, "start refused");
        }
    }

    function record(uint256 task, uint256 caller, uint8 round, uint8 attempt, uint8 manifest) external {
        if (taskIds.length == 0) return;
        bytes32 taskId = _task(task);
        Model storage m = models[taskId];
        uint32 number = uint32(m.lastRound + (round % 4 == 0 ? round % 3 : 1));
        uint32 again = attempt % 4 == 0 ? 0 : uint32(m.lastAttempt + attempt % 4 - 1);
        bytes32 digest = bytes32(uint256(manifest % 4));
        bool allowed = _mayRecord(m, number, again) && digest != 0 && _coordinator(taskId, caller) == m.coordinator;
        vm.prank(_coordinator(taskId, caller));
        try tasks.recordRound(taskId, number, again, digest, keccak256("root")) {
            _expect(allowed, "record");
            m.previousHead = m.head;
            m.head = keccak256(abi.encode(m.head, taskId, number, again, digest, keccak256("root")));
            (m.lastRound, m.lastAttempt, m.manifest) = (number, again, digest);
        } catch {
            _expect(!allowed, "record refused");
        }
    }

    function conclude(uint256 task, uint256 caller, uint8 signers, bool finalise, uint8 forged, bool unordered)
        external
    {
        if (taskIds.length == 0) return;
        bytes32 taskId = _task(task);
        (bytes[] memory signatures, bool allowed) = _statements(taskId, signers, unordered, forged % 8 == 1);
        allowed = allowed && _mayConclude(taskId, finalise) && forged % 8 != 0
            && _coordinator(taskId, caller) == models[taskId].coordinator;
        vm.prank(_coordinator(taskId, caller));
        if (finalise) {
            try tasks.finalise(taskId, _last(taskId, forged), _model(taskId), keccak256("metrics"), signatures) {
                _expect(allowed, "finalise");
                models[taskId].state = 3;
                models[taskId].model = _model(taskId);
            } catch {
                _expect(!allowed, "finalise refused");
            }
        } else {
            try tasks.attest(taskId, _last(taskId, forged), _model(taskId), keccak256("metrics"), signatures) {
                _expect(allowed, "attest");
            } catch {
                _expect(!allowed, "attest refused");
            }
        }
    }

    function cancel(uint256 task, uint256 caller, uint16 length) external {
        // Rarely, or no task would live to be finalised.
        if (taskIds.length == 0 || length % 8 != 0) return;
        bytes32 taskId = _task(task);
        Model storage m = models[taskId];
        bytes memory reason = new bytes(length % 300);
        bool allowed = (m.state == 1 || m.state == 2) && reason.length <= tasks.MAX_REASON_LENGTH()
            && _coordinator(taskId, caller) == m.coordinator;
        vm.prank(_coordinator(taskId, caller));
        try tasks.cancel(taskId, string(reason)) {
            _expect(allowed, "cancel");
            m.state = 4;
        } catch {
            _expect(!allowed, "cancel refused");
        }
    }

    function _mayRecord(Model storage m, uint256 number, uint256 again) private view returns (bool) {
        bool follows = number == m.lastRound + 1 && again != 0;
        bool supersedes = number == m.lastRound && number != 0 && again > m.lastAttempt;
        return m.state == 2 && number <= m.rounds && (follows || supersedes);
    }

    function _mayConclude(bytes32 taskId, bool finalise) private view returns (bool) {
        Model storage m = models[taskId];
        return m.state == 2 && m.lastRound != 0 && (!finalise || m.lastRound == m.rounds);
    }

    function _last(bytes32 taskId, uint8 forged) private view returns (TaskRegistry.FinalRound memory) {
        Model storage m = models[taskId];
        bytes32 previous = forged % 8 == 0 ? keccak256("forged") : m.previousHead;
        return TaskRegistry.FinalRound(previous, uint32(m.lastAttempt), m.manifest, keccak256("root"));
    }

    function _model(bytes32 taskId) private view returns (bytes32) {
        return keccak256(abi.encode("model", models[taskId].head));
    }

    /// @dev The signatures of the nodes whose bit is set, in the order of their addresses or against it, the last one
    /// twice if wanted, and whether they are a quorum of members in order.
    function _statements(bytes32 taskId, uint8 bits, bool unordered, bool twice)
        private
        view
        returns (bytes[] memory signatures, bool valid)
    {
        bytes32 structHash = keccak256(
            abi.encode(
                tasks.MODEL_STATEMENT_TYPEHASH(),
                taskId,
                uint32(models[taskId].lastRound),
                models[taskId].manifest,
                _model(taskId),
                keccak256("metrics")
            )
        );
        uint256[] memory signers = _chosen(bits, unordered && bits % 4 == 3);
        signatures = new bytes[](signers.length);
        valid = signers.length >= models[taskId].quorum && (signers.length < 2 || !(unordered && bits % 4 == 3));
        for (uint256 i = 0; i < signers.length; ++i) {
            valid = valid && samplesOf[taskId][_node(signers[i])] != 0;
            signatures[i] = _signature(_key(signers[i]), address(tasks), structHash);
        }
        if (twice && signers.length > 1) {
            signatures[signers.length - 1] = signatures[signers.length - 2];
            valid = false;
        }
    }

    /// @dev The numbers of the nodes whose bit is set, sorted by their addresses.
    function _chosen(uint8 bits, bool falling) private pure returns (uint256[] memory chosen) {
        uint256 total;
        for (uint256 i = 0; i < NODES; ++i) {
            total += (bits >> i) & 1;
        }
        chosen = new uint256[](total);
        uint256 filled;
        for (uint256 i = 0; i < NODES; ++i) {
            if ((bits >> i) & 1 == 0) continue;
            uint256 place = filled++;
            for (; place > 0 && (_node(chosen[place - 1]) > _node(i)) != falling; --place) {
                chosen[place] = chosen[place - 1];
            }
            chosen[place] = i;
        }
    }

    function _pair(bytes32 taskId, uint256 who, uint256 twist, uint64 samples, bool staleKey)
        private
        view
        returns (TaskRegistry.Joining[] memory joinings, bool allowed, bytes32 roster)
    {
        joinings = new TaskRegistry.Joining[](2);
        allowed = true;
        roster = models[taskId].roster;
        for (uint256 i = 0; i < 2; ++i) {
            joinings[i] = _joining(taskId, who % NODES + i, twist, samples, staleKey);
            bool own = _signer(who % NODES + i, twist) == (who % NODES + i) % NODES;
            allowed = allowed && _mayJoin(taskId, models[taskId].maxSamples, joinings[i], own);
            roster = _chained(roster, joinings[i]);
        }
    }

    function _joining(bytes32 taskId, uint256 who, uint256 twist, uint64 samples, bool staleKey)
        private
        view
        returns (TaskRegistry.Joining memory joining)
    {
        joining.node = _node(who % NODES);
        joining.samples = samples;
        joining.dataCommitment = bytes32(uint256(7));
        joining.sealingKey = staleKey ? keccak256("stale") : keyOf[joining.node];
        bytes32 structHash = keccak256(
            abi.encode(
                tasks.MEMBERSHIP_TYPEHASH(),
                taskId,
                keccak256("terms"),
                joining.node,
                samples,
                joining.dataCommitment,
                joining.sealingKey
            )
        );
        joining.signature = _signature(_key(_signer(who, twist)), address(tasks), structHash);
    }

    function _mayJoin(bytes32 taskId, uint256 maxSamples, TaskRegistry.Joining memory joining, bool own)
        private
        view
        returns (bool)
    {
        return own && joining.sealingKey != 0 && keyOf[joining.node] == joining.sealingKey && joining.samples != 0
            && joining.samples <= maxSamples && samplesOf[taskId][joining.node] == 0;
    }

    function _chained(bytes32 roster, TaskRegistry.Joining memory joining) private pure returns (bytes32) {
        return keccak256(abi.encode(roster, joining.node, joining.samples, joining.dataCommitment, joining.sealingKey));
    }

    /// @dev Who signs for a node: now and then another one.
    function _signer(uint256 who, uint256 twist) private pure returns (uint256) {
        return twist % 8 == 0 ? (who % NODES + 1) % NODES : who % NODES;
    }

    /// @dev The task's coordinator, or now and then another one.
    function _coordinator(bytes32 taskId, uint256 twist) private view returns (address) {
        return twist % 8 == 0 ? address(0xBAD) : models[taskId].coordinator;
    }

    function _coordinator(uint256 number) private pure returns (address) {
        return address(uint160(0xC0 + (number % COORDINATORS)));
    }

    function _task(uint256 number) private view returns (bytes32) {
        return taskIds[number % taskIds.length];
    }

    function _expect(bool condition, string memory what) private {
        require(condition, what);
        ++succeeded[what];
    }
}
