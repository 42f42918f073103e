// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title A contract with flaws, so that whoever looks for flaws can be seen to find them.
contract Planted {
    mapping(address owner => uint256 owed) public owedTo;

    function deposit() external payable {
        owedTo[msg.sender] += msg.value;
    }

    function withdraw() external {
        (bool sent,) = msg.sender.call{value: owedTo[msg.sender]}("");
        require(sent);
        owedTo[msg.sender] = 0;
    }

    function isLate(uint256 deadline) external view returns (bool) {
        return block.timestamp > deadline;
    }
}
