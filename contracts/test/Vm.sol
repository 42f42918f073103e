// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title What the tests ask of forge: https://getfoundry.sh/reference/cheatcodes/overview
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function prank(address caller) external;
    function expectRevert(bytes calldata data) external;
    function roll(uint256 number) external;
    function warp(uint256 timestamp) external;
    function assume(bool condition) external pure;
    function chainId(uint256 id) external;
}

/// @title Common ground of the tests: forge, and keys that sign as nodes do.
abstract contract Signing {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// @dev The key of node number `number`, from 0.
    function _key(uint256 number) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("node", number))) >> 1;
    }

    /// @dev The address of node number `number`.
    function _node(uint256 number) internal pure returns (address) {
        return vm.addr(_key(number));
    }

    /// @dev EIP-712, written out once more so that the contracts' own is checked by another.
    function _signature(uint256 key, address verifying, bytes32 structHash) internal view returns (bytes memory) {
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPEHASH, keccak256("twopm-flower"), keccak256("1"), block.chainid, verifying));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, structHash)));
        return abi.encodePacked(r, s, v);
    }
}
