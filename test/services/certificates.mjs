// @ts-check
/** Certificates for tests, made by openssl: authorities, and what they issue. */
import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { need } from "./packages.mjs";
import { run, temporaryFolder } from "./processes.mjs";

/** Small and fast to make. */
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/**
 * A certificate and its key, as files and as text (PEM).
 *
 * @typedef {object} Issued
 * @property {string} certFile
 * @property {string} keyFile
 * @property {string} cert
 * @property {string} key
 */

/**
 * @typedef {object} Wish
 * @property {string[]} [san] "DNS:localhost", "IP:127.0.0.1", "URI:spiffe://prod/ci"; none by default
 * @property {Date} [notBefore] default: an hour ago
 * @property {Date} [notAfter] default: in a day
 */

/** @param {Date} date as openssl takes it: "20270131000000Z" */
const stamp = (date) => `${date.toISOString().replace(/\D/g, "").slice(0, 14)}Z`;

const later = (/** @type {number} */ hours) => new Date(Date.now() + hours * 3_600_000);

/**
 * A new authority.
 *
 * @param {string} [name]
 * @example
 * const ca = await certificateAuthority();
 * const server = await ca.issue("server", { san: ["DNS:localhost", "IP:127.0.0.1"] });
 * const client = await ca.issue("ci", { san: ["URI:spiffe://prod/ci"] });
 */
export async function certificateAuthority(name = "authority") {
  const openssl = await need("openssl");
  const folder = temporaryFolder("certificates");
  const at = (/** @type {string} */ file) => join(folder, file);
  const request = ["req", "-x509", ...KEY, "-keyout", at("ca.key"), "-out", at("ca.pem"), "-days", "2"];
  const extensions = ["-addext", "keyUsage=critical,keyCertSign"]; // openssl makes it an authority by itself
  await run([openssl, ...request, "-subj", `/CN=${name}`, ...extensions]);
  writeFileSync(at("index.txt"), "");
  let serial = 0;
  /** openssl keeps a list of what it has issued: one at a time. */
  let before = Promise.resolve();

  /**
   * @param {string} subject its common name
   * @param {Wish} [wish]
   */
  function issue(subject, wish) {
    const issued = before.then(() => issueNow(subject, wish));
    before = issued.then(
      () => undefined,
      () => undefined,
    );
    return issued;
  }

  /**
   * @param {string} subject
   * @param {Wish} [wish]
   * @returns {Promise<Issued>}
   */
  async function issueNow(subject, { san = [], notBefore = later(-1), notAfter = later(24) } = {}) {
    const id = `${++serial}`;
    const [certFile, keyFile, csr, config] = [`${id}.pem`, `${id}.key`, `${id}.csr`, `${id}.cnf`].map(at);
    if (!certFile || !keyFile || !csr || !config) throw new Error("unreachable");
    writeFileSync(at(`${id}.serial`), `${(Date.now() * 100 + serial).toString(16).padStart(16, "0")}\n`);
    writeFileSync(
      config,
      `[ca]\ndefault_ca = own\n[own]\nnew_certs_dir = ${folder}\ndatabase = ${at("index.txt")}\n` +
        `serial = ${at(`${id}.serial`)}\ndefault_md = sha256\npolicy = any\nunique_subject = no\n` +
        `x509_extensions = leaf\n[any]\ncommonName = supplied\n[leaf]\nbasicConstraints = CA:FALSE\n` +
        (san.length > 0 ? `subjectAltName = ${san.join(",")}\n` : ""),
    );
    await run([openssl, "req", "-new", ...KEY, "-keyout", keyFile, "-out", csr, "-subj", `/CN=${subject}`]);
    await run([
      ...[openssl, "ca", "-batch", "-notext", "-config", config, "-in", csr, "-out", certFile],
      ...["-cert", at("ca.pem"), "-keyfile", at("ca.key")],
      ...["-startdate", stamp(notBefore), "-enddate", stamp(notAfter)],
    ]);
    const [cert, key] = await Promise.all([readFile(certFile, "utf8"), readFile(keyFile, "utf8")]);
    return { certFile, keyFile, cert, key };
  }

  return { certFile: at("ca.pem"), cert: await readFile(at("ca.pem"), "utf8"), issue };
}
