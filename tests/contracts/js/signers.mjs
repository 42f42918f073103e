// Recovers who signed typed data with ethers: a list of {domain, types, message, signature} in, addresses out.
import { readFileSync } from "node:fs";
import { verifyTypedData } from "ethers";

const statements = JSON.parse(readFileSync(0, "utf8"));
const signers = statements.map(({ domain, types, message, signature }) =>
  verifyTypedData(domain, types, message, signature),
);
console.log(JSON.stringify(signers));
