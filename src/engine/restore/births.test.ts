import assert from 'node:assert/strict';
import { test } from 'node:test';
import { arrangeBirths, type Kin } from './births.js';

interface Member extends Kin {
  readonly parent: Member | undefined;
}

function tree(...rows: [pid: number, ppid: number, sid: number, pgid?: number][]): Member[] {
  const members: Member[] = [];
  for (const [pid, ppid, sid, pgid] of rows)
    members.push({ pid, parent: members.find((other) => other.pid === ppid), sid, pgid: pgid ?? sid });
  return members;
}

/** Play the births: who ends up with which parent and session. */
function live(members: Member[]): Map<number, { ppid: number; sid: number }> {
  const { persons, root } = arrangeBirths(members);
  const lives = new Map<number, { ppid: number; sid: number }>();
  lives.set(root.pid, { ppid: 0, sid: root.sid === root.pid ? -1 : root.sid });
  for (const person of persons) {
    const own = lives.get(person.pid);
    assert.ok(own, `pid ${person.pid} acts before it is born`);
    for (const { child } of person.before) lives.set(child.pid, { ppid: person.pid, sid: own.sid });
    if (person.sid === person.pid) own.sid = person.pid;
    for (const { child, sibling } of person.after)
      lives.set(child.pid, { ppid: sibling ? own.ppid : person.pid, sid: own.sid });
  }
  return lives;
}

const shapes: [string, Member[]][] = [
  ['a leader and its children', tree([5, 0, 5], [6, 5, 5], [7, 6, 5])],
  ['children with sessions of their own', tree([5, 0, 5], [6, 5, 6], [7, 6, 6], [8, 5, 8])],
  ['a child born before its parent called setsid', tree([5, 0, 5], [6, 5, 6], [7, 6, 5])],
  ['the same two levels deep', tree([5, 0, 5], [6, 5, 6], [7, 6, 7], [8, 7, 5])],
  ['a sibling in the session of a living leader', tree([5, 0, 5], [6, 5, 6], [7, 5, 6])],
  ['a session whose leader has died', tree([5, 0, 5], [7, 5, 6], [8, 5, 6], [9, 7, 6])],
  ['a tree in the session of its caller', tree([5, 0, 3, 3], [6, 5, 3, 3], [7, 5, 7], [8, 7, 3, 3])],
];

for (const [name, members] of shapes)
  test(`births: ${name}`, () => {
    const lives = live(members);
    for (const { pid, parent, sid } of members) {
      if (parent === undefined) continue;
      assert.deepEqual(lives.get(pid), { ppid: parent.pid, sid }, `pid ${pid}`);
    }
  });

test('a group without a leader gets a stand-in in the session of its members', () => {
  const { persons } = arrangeBirths(tree([5, 0, 5], [7, 5, 5, 6], [8, 5, 5, 6]));
  const standIn = persons.find(({ image }) => image === undefined);
  assert.deepEqual([standIn?.pid, standIn?.sid, standIn?.pgid], [6, 5, 6]);
});

test('the group the root was born into has no stand-in', () => {
  const { persons } = arrangeBirths(tree([5, 0, 3, 4], [6, 5, 3, 4]));
  assert.equal(persons.length, 2);
});

test('a session that nobody can be born into is refused by name', () => {
  assert.throws(
    () => arrangeBirths(tree([5, 0, 5], [6, 5, 6], [7, 6, 7], [8, 5, 7])),
    /pid 8 is in session 7/,
  );
});
