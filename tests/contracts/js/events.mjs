// Reads all events of our contracts with ethers: {url, contracts: {address: abi}} in, events out.
import { readFileSync } from "node:fs";
import { Interface, JsonRpcProvider } from "ethers";

const { url, contracts } = JSON.parse(readFileSync(0, "utf8"));
const provider = new JsonRpcProvider(url);
const interfaces = Object.fromEntries(Object.entries(contracts).map(([address, abi]) => [address, new Interface(abi)]));
const logs = await provider.getLogs({ address: Object.keys(contracts), fromBlock: 0 });
const plain = (value) => (typeof value === "bigint" ? Number(value) : value);
const events = logs.map((log) => {
  const parsed = interfaces[log.address].parseLog(log);
  const names = parsed.fragment.inputs.map((input) => input.name);
  return {
    name: parsed.name,
    values: Object.fromEntries(names.map((name, i) => [name, plain(parsed.args[i])])),
    block_number: log.blockNumber,
    block_hash: log.blockHash,
    transaction_hash: log.transactionHash,
    index: log.index,
  };
});
console.log(JSON.stringify(events));
provider.destroy();
