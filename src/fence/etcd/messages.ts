/**
 * The messages of etcd's v3 API as its JSON gateway has them: field names as in `rpc.proto`, bytes in base64, 64-bit
 * integers as text, and nothing for what is zero, false or empty. Only what a fence and its users need is here.
 */
import { invalid, show } from "../errors.js";

/** A key or a value: text in UTF-8, or bytes. */
export type EtcdBytes = string | Buffer;

export interface EtcdKeyValue {
  readonly key: string;
  readonly value?: string | undefined;
  readonly create_revision?: string | undefined;
  readonly mod_revision?: string | undefined;
  readonly version?: string | undefined;
  readonly lease?: string | undefined;
}

export interface EtcdRangeRequest {
  readonly key: string;
  readonly range_end?: string | undefined;
  readonly limit?: string | undefined;
  readonly keys_only?: boolean | undefined;
}

export interface EtcdRangeResponse {
  readonly kvs?: readonly EtcdKeyValue[] | undefined;
  readonly count?: string | undefined;
}

export interface EtcdCompare {
  readonly key: string;
  readonly target: "VERSION" | "CREATE" | "MOD" | "VALUE" | "LEASE";
  readonly result: "EQUAL" | "GREATER" | "LESS" | "NOT_EQUAL";
  readonly version?: string | undefined;
  readonly create_revision?: string | undefined;
  readonly mod_revision?: string | undefined;
  readonly value?: string | undefined;
  readonly lease?: string | undefined;
  readonly range_end?: string | undefined;
}

export interface EtcdOp {
  readonly request_range?: EtcdRangeRequest;
  readonly request_put?: {
    readonly key: string;
    readonly value: string;
    readonly lease?: string | undefined;
    readonly prev_kv?: boolean | undefined;
  };
  readonly request_delete_range?: {
    readonly key: string;
    readonly range_end?: string | undefined;
    readonly prev_kv?: boolean | undefined;
  };
  readonly request_txn?: EtcdTxnRequest;
}

export interface EtcdTxnRequest {
  readonly compare?: readonly EtcdCompare[] | undefined;
  readonly success?: readonly EtcdOp[] | undefined;
  readonly failure?: readonly EtcdOp[] | undefined;
}

export interface EtcdOpResponse {
  readonly response_range?: EtcdRangeResponse | undefined;
  readonly response_put?: { readonly prev_kv?: EtcdKeyValue | undefined } | undefined;
  readonly response_delete_range?:
    | { readonly deleted?: string | undefined; readonly prev_kvs?: readonly EtcdKeyValue[] | undefined }
    | undefined;
  readonly response_txn?: EtcdTxnResponse | undefined;
}

export interface EtcdTxnResponse {
  readonly succeeded?: boolean | undefined;
  readonly responses?: readonly EtcdOpResponse[] | undefined;
}

/** What a fence needs of etcd. `etcdGateway` is one, and a client by gRPC can be made one. Reads must be linearizable. */
export interface EtcdKv {
  txn(request: EtcdTxnRequest): Promise<EtcdTxnResponse>;
  range(request: EtcdRangeRequest): Promise<EtcdRangeResponse>;
}

/** Bytes or text in base64. Throws INVALID for anything else. */
export function toBase64(bytes: unknown): string {
  if (typeof bytes === "string") return Buffer.from(bytes).toString("base64");
  if (Buffer.isBuffer(bytes)) return bytes.toString("base64");
  throw invalid(`keys and values must be text or a Buffer, not ${show(bytes)}`);
}

/** What a base64 field has; an empty one is left out by etcd. */
export const fromBase64 = (field: string | undefined): Buffer => Buffer.from(field ?? "", "base64");

/** An operation of a transaction that writes a key. `lease`: the key goes with that lease of etcd, given as text. */
export function putOp(key: EtcdBytes, value: EtcdBytes, lease?: string): EtcdOp {
  const put = { key: toBase64(key), value: toBase64(value) };
  return { request_put: lease === undefined ? put : { ...put, lease } };
}

/** An operation of a transaction that deletes a key. */
export const deleteOp = (key: EtcdBytes): EtcdOp => ({ request_delete_range: { key: toBase64(key) } });

/** An operation of a transaction that reads a key. */
export const rangeOp = (key: EtcdBytes): EtcdOp => ({ request_range: { key: toBase64(key) } });

/** A condition: the value of a key. A key that does not exist meets none. */
export const valueIs = (key: EtcdBytes, result: EtcdCompare["result"], value: EtcdBytes): EtcdCompare => ({
  key: toBase64(key),
  target: "VALUE",
  result,
  value: toBase64(value),
});

/** A condition: how often a key has been written since it was created; 0: it does not exist. */
export const versionIs = (key: EtcdBytes, result: EtcdCompare["result"], version: number): EtcdCompare => ({
  key: toBase64(key),
  target: "VERSION",
  result,
  version: String(version),
});
