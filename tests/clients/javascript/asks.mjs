// Asks STS who it is, once for each line, as any program with the AWS SDK for JavaScript v3 would: by the default
// credential chain.
//
// Prints a line of JSON for each: the ARN and the access key, or what the SDK says.
import { createInterface } from "node:readline";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const client = new STSClient({});

async function ask() {
  try {
    const { Arn: arn } = await client.send(new GetCallerIdentityCommand({}));
    const { accessKeyId: key } = await client.config.credentials();
    return { ok: true, arn, key };
  } catch (error) {
    return { ok: false, error: `${error.name}: ${error.message}` };
  }
}

const say = (said) => process.stdout.write(JSON.stringify(said) + "\n");
say({ ready: true });
for await (const _ of createInterface({ input: process.stdin })) say(await ask());
