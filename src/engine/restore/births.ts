import { RestoreError } from '../errors.js';
/**
 * Who is forked by whom, and when, so that everybody gets the right parent and session.
 *
 * A session is entered only by being born in it, so a task must be forked while its creator is in that session: by
 * its parent before or after that one's setsid(2), or by a sibling with CLONE_PARENT. A session or group whose leader
 * has died needs a stand-in with the leader's pid, who is gone again before the tree runs.
 */
export interface Person<K extends Kin = Kin> {
  readonly pid: number;
  /** Undefined for a stand-in. */
  readonly image: K | undefined;
  readonly parent: Person<K> | undefined;
  readonly sid: number;
  readonly pgid: number;
  /** Forked before its own setsid, in this order. */
  readonly before: Birth<K>[];
  /** Forked after that. */
  readonly after: Birth<K>[];
}

export interface Birth<K extends Kin = Kin> {
  readonly child: Person<K>;
  /** Fork it as a sibling (CLONE_PARENT). */
  readonly sibling: boolean;
}

export interface Family<K extends Kin = Kin> {
  /** Creators before those they create, stand-ins included. */
  readonly persons: readonly Person<K>[];
  readonly root: Person<K>;
}

/** What has to be known of a process to arrange its birth. */
export interface Kin {
  readonly pid: number;
  readonly parent: Kin | undefined;
  readonly sid: number;
  readonly pgid: number;
}

export function leadsSession(person: { readonly pid: number; readonly sid: number }): boolean {
  return person.sid === person.pid;
}

/** A pid that has to exist for a while though no process of the image has it; with `sid`, as a group in that session. */
export interface Absent {
  readonly pid: number;
  readonly sid?: number;
}

/**
 * Arrange the births of a tree, given parents first. `standIns` are further pids that have to exist for a while.
 * Throws RestoreError where no order exists.
 */
export function arrangeBirths<K extends Kin>(
  processes: readonly K[],
  standIns: readonly Absent[] = [],
): Family<K> {
  return new Arrangement(processes, standIns).arrange();
}

function hasAncestorIn(person: Person, session: number): boolean {
  for (let above = person.parent; above !== undefined; above = above.parent)
    if (above.sid === session) return true;
  return false;
}

class Arrangement<K extends Kin> {
  readonly #persons = new Map<number, Person<K>>();
  readonly #root: Person<K>;

  constructor(processes: readonly K[], standIns: readonly Absent[]) {
    for (const image of processes)
      this.#add(image.pid, image, this.#persons.get(image.parent?.pid ?? 0), image);
    const [root] = this.#persons.values();
    if (root === undefined) throw new RestoreError('no process');
    this.#root = root;
    for (const { pid, sid } of standIns) {
      if (this.#persons.has(pid)) continue;
      const leader = sid === undefined ? undefined : this.#persons.get(sid);
      if (leader === undefined) this.#add(pid, undefined, root, root);
      else this.#add(pid, undefined, leader, { sid: leader.sid, pgid: pid });
    }
  }

  arrange(): Family<K> {
    for (const person of [...this.#persons.values()]) this.#standInForGroup(person);
    for (const person of [...this.#persons.values()])
      if (person.parent !== undefined) this.#assign(person, person.parent);
    const ordered = [this.#root];
    for (const person of ordered)
      for (const { child } of [...person.before, ...person.after]) ordered.push(child);
    return { persons: ordered, root: this.#root };
  }

  #add(
    pid: number,
    image: K | undefined,
    parent: Person<K> | undefined,
    group: { sid: number; pgid: number },
  ) {
    const person = { pid, image, parent, sid: group.sid, pgid: group.pgid, before: [], after: [] };
    this.#persons.set(pid, person);
    return person as Person<K>;
  }

  /** A group without a leader, other than the one the root is born into, gets a stand-in next to its first member. */
  #standInForGroup(person: Person<K>): void {
    const { pgid, sid } = person;
    if (pgid === 0 || this.#persons.has(pgid) || pgid === this.#root.pgid) return;
    this.#add(pgid, undefined, person.parent ?? this.#root, { sid, pgid });
  }

  /** The session a person must be born in; undefined if any will do, since it makes its own. */
  #bornIn(person: Person<K>): number | undefined {
    if (!leadsSession(person)) return person.sid;
    for (const child of this.#persons.values()) {
      if (child.parent !== person) continue;
      const wanted = this.#bornIn(child);
      if (wanted === undefined || wanted === person.sid || this.#siblingLeads(wanted, person)) continue;
      if (hasAncestorIn(person, wanted)) return wanted;
    }
    return undefined;
  }

  /** Is the leader of this session a child of `parent`, or can a stand-in be one? */
  #siblingLeads(session: number, parent: Person<K>): boolean {
    const leader = this.#persons.get(session);
    return leader === undefined ? session !== this.#root.sid : leader.parent === parent;
  }

  #assign(person: Person<K>, parent: Person<K>): void {
    const wanted = this.#bornIn(person);
    if (wanted === undefined || wanted === parent.sid) parent.after.push({ child: person, sibling: false });
    else if (this.#bornIn(parent) === wanted) parent.before.push({ child: person, sibling: false });
    else {
      const leader = this.#persons.get(wanted) ?? this.#standInForSession(wanted, parent);
      if (leader.parent !== parent)
        throw new RestoreError(
          `pid ${person.pid} is in session ${wanted}, whose leader is neither an ancestor nor a sibling of it`,
        );
      leader.after.push({ child: person, sibling: true });
    }
  }

  #standInForSession(sid: number, parent: Person<K>): Person<K> {
    const leader = this.#add(sid, undefined, parent, { sid, pgid: sid });
    parent.after.push({ child: leader, sibling: false });
    return leader;
  }
}
