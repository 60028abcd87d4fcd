// Asks a node by the types that openapi-typescript has made of its document. Arguments: the URL of the node.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { argv: string[]; exitCode?: number };

const client = createClient<paths>({
  baseUrl: process.argv[2],
  // As the document says it: each attribute is a parameter of its own.
  querySerializer: { object: { style: "form", explode: true } },
});

function assert(fine: boolean, what: unknown): asserts fine {
  if (!fine) throw new Error(JSON.stringify(what));
}

async function main(): Promise<void> {
  const params = { path: { domain: "made" } };
  const put = await client.PUT("/v1/rules/{domain}", {
    params,
    body: { rules: [{ name: "per-ip", key: ["ip"], limit: "2/1h" }] },
  });
  assert(put.data?.changed === true, put.error);
  const seen = await client.GET("/v1/rules/{domain}", { params });
  assert(seen.data !== undefined && typeof seen.data !== "string", seen.error);
  assert(seen.data.rules[0]?.limit === "2/1h", seen.data);

  // Domain and cost can be left out.
  const attributes = { ip: "203.0.113.7" };
  const anywhere = await client.POST("/v1/check", { body: { attributes } });
  assert(anywhere.data?.allowed === true, anywhere);
  const first = await client.POST("/v1/check", { body: { attributes, domain: "made" } });
  assert(first.data?.remaining === 1, first);
  const second = await client.GET("/v1/check", { params: { query: { attributes, domain: "made" } } });
  assert(second.data?.rule === "per-ip" && second.data.remaining === 0, second);
  const third = await client.POST("/v1/check", { body: { attributes, domain: "made" } });
  assert(third.response.status === 429 && third.error !== undefined && "retry_after_ms" in third.error, third);
  const batch = await client.POST("/v1/check/batch", {
    body: { checks: [{ attributes }, { key: "user-42", limit: "100/1m" }] },
  });
  assert(batch.data?.answers.length === 2, batch);

  const reset = await client.POST("/v1/reset", { body: { attributes, domain: "made" } });
  assert(reset.data?.buckets[0]?.remaining === 2, reset);
  const unknown = await client.POST("/v1/reset", {
    params: { query: { rule: "per-user" } },
    body: { attributes, domain: "made" },
  });
  assert(unknown.response.status === 404 && unknown.error !== undefined, unknown);
  const cluster = await client.GET("/v1/cluster");
  assert(cluster.data?.members[0]?.name === "n1", cluster);
  console.log("fine");
}

main().catch((error: unknown) => {
  console.log(String(error));
  process.exitCode = 1;
});
