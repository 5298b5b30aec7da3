# ruff: noqa: E501 - a paraphrase stays on one line, so that the variants can be read against each other
"""The plots: each a sequence of beats, each beat a choice between paraphrases of the same event.

What happens (who, which object, where it was found) is drawn once and named by slots, so that every sentence of a
story speaks of the same things whichever paraphrase is chosen. `{hero}` and `{friend}` are people with `.he .him .his
.He .His .kind .species`, `{elder}` is a member of the hero's family, `{thing}` the object with `.a .the .The .noun`.
`.Capital` starts a sentence with a phrase. A `|` at the start or end of a beat is a new paragraph.
"""

from __future__ import annotations

from typing import NamedTuple

from tinydata.synthetic.story_words import LIGHT_TOYS, TOYS


class Plot(NamedTuple):
    """Beats in order; what the hero learned, told at the end of some stories; objects that fit; where it ends."""

    beats: tuple[tuple[str, ...], ...]
    morals: tuple[str, ...]
    things: tuple[str, ...] = TOYS
    ends_at_home: bool = False


OPENINGS = (
    "Once upon a time, there was {hero.kind} named {hero}. {hero.He} lived {home}.",
    "Once there was {hero.kind} called {hero}. {hero.He} was very {trait} and lived {home}.",
    "{hero} was {hero.kind} who lived {home} with {hero.his} {elder}.",
    "There was once {hero.kind}. {hero.His} name was {hero}, and {hero.he} was very {trait}.",
    "{hero} was a {trait} {hero.species}. {hero.He} lived {home} with {hero.his} {elder}.",
)

MORAL_LEADS = (
    "From that day on, {hero} knew that {moral}.",
    "{hero} learned that {moral}.",
    "And {hero} never forgot that {moral}.",
    '"Now I know that {moral}," {hero} said.',
)

ENDINGS = (
    "{hero} was very happy.",
    "{hero}'s {elder} was very proud of {hero.him}.",
    "{hero} and {friend} were friends for a long, long time.",
    "And everyone was happy.",
    "What a good day it was!",
)

WAYS_HOME = (
    "Then {hero} went home and told {hero.his} {elder} all about it.",
    "That night, {hero} went to bed with a big smile.",
    "{hero} and {friend} laughed and went home together.",
    "Then the sun went down, and it was time to go home.",
)

LOST = Plot(
    (
        (
            "{hero} had {thing.a}. {hero.He} took it everywhere.",
            "{hero.His} favorite toy was {thing.a}.",
            "For {hero.his} birthday, {hero} got {thing.a}. {hero.He} loved it very much.",
        ),
        (
            "One {weather} {time}, {hero} went {place.to} to play. But when {hero.he} wanted to go home, {thing.the} was gone!|",
            "One {time}, {hero} played {place.at} for a long time. Then {hero.he} looked around. Where was {thing.the}?|",
        ),
        (
            "{hero} looked {spot}, but it was not there. {hero.He} looked {other_spot}, but it was not there. {hero.He} began to cry.",
            "First {hero.he} looked {spot}. No {thing.noun}. Then {hero.he} looked {other_spot}. No {thing.noun}. {hero} felt very sad.",
        ),
        (
            '{friend}, {friend.kind}, came by. "Why are you sad?" asked {friend}. "I lost my {thing.noun}," said {hero}. "I will help you look," said {friend}.',
            '"What is wrong?" asked {friend}, {friend.kind}. "I can not find {thing.the}," said {hero}. "Do not worry. Two can look better than one," said {friend}.',
        ),
        (
            '|They looked and looked. At last, {friend} pointed {last_spot}. "Is that it?" {friend.he} asked. "Yes!" said {hero}. "That is my {thing.noun}!"',
            "|They looked together, step by step. And there, {last_spot}, was {thing.the}! {hero} jumped for joy.",
            "|Then {friend} began to laugh. {thing.The} was on the back of {hero} all the time, tied to {hero.his} bag! {hero} laughed too.",
        ),
        (
            '"Thank you, {friend}," said {hero}, and they played with {thing.the} until the evening.',
            "{hero} gave {friend} a hug, and {friend} got the first turn with {thing.the}.",
        ),
    ),
    ("friends make hard things easy", "it is good to ask for help", "a good friend helps you look"),
)

STUCK = Plot(
    (
        (
            "One {weather} {time}, {hero} took {thing.a} {place.to}.",
            "One {time}, {hero} was playing with {thing.a} {place.at}.",
        ),
        (
            "{hero.He} threw it up into the air, and it landed {high_spot}.",
            "Suddenly a strong wind came. It blew {thing.the} away, and now it was stuck {high_spot}.",
        ),
        (
            '"Oh no!" said {hero}. "It is too high for me."|',
            '"Come back!" {hero} called, but {thing.the} did not move.|',
        ),
        (
            "{hero} jumped as high as {hero.he} could, but {hero.he} could not reach it. {hero.He} threw a small stone at it, but it did not fall.",
            "First {hero} tried to climb, but {hero.he} slid down. Then {hero.he} tried to shake it down, but nothing happened.",
        ),
        (
            '{friend}, {friend.kind}, saw it and ran to get {tool}. "Let us try this," {friend.he} said.',
            'Then {friend} came along. {friend.He} was {friend.kind} with a good idea. "We can use {tool}!" said {friend}.',
        ),
        (
            "|They worked together, and soon {thing.the} was back in the hands of {hero}.",
            "|{hero} held {tool} and {friend} reached up. Down came {thing.the}!",
            "|But before they could try, the wind blew again, and {thing.the} fell down right in front of them. They both laughed.",
        ),
        (
            '"Now we can play with it together," said {hero}.',
            "They played with {thing.the} until dinner, far away from the wall and the trees.",
        ),
    ),
    ("two heads are better than one", "there is always another way", "you should not give up too soon"),
    things=LIGHT_TOYS,
)

BROKEN = Plot(
    (
        (
            "{hero} had a good friend, {friend}. {friend} was {friend.kind} and had {thing.a}.",
            "{friend} was {friend.kind} who lived nearby. One day {friend} showed {hero} {thing.a}.",
        ),
        (
            "{hero} wanted to play with it. But {hero.he} was not careful, and {thing.the} broke.|",
            "One {time}, when {friend} was away, {hero} took {thing.the}. It fell down with a crash and broke.|",
        ),
        (
            "{hero} was afraid. {hero.He} hid {thing.the} {spot} and ran home.",
            '{hero} did not know what to do. "{friend} will be angry with me," {hero.he} thought.',
        ),
        (
            'But {hero.he} could not sleep that night. {hero.He} told {hero.his} {elder} what had happened. "Tell the truth," said {hero.his} {elder}. "It is hard, but it is right."',
            '{hero.His} {elder} saw that {hero} was sad. "What is the matter?" {elder.he} asked. {hero} told {elder.him} everything. "You should say sorry," said {hero.his} {elder}.',
        ),
        (
            '|So {hero} went to {friend}. "I broke your {thing.noun}," {hero.he} said. "I am very sorry."',
            '|The next day, {hero} took a deep breath. "{friend}, it was me. I broke {thing.the}," {hero.he} said.',
        ),
        (
            '{friend} was sad at first. Then {friend.he} smiled. "Thank you for telling me," said {friend}. "We can fix it together."',
            '"I was angry," said {friend}, "but you told me the truth. Let us fix it."',
        ),
        (
            "They worked all {time} with glue and string, and {thing.the} was as good as new.",
            "They fixed {thing.the}. It looked a bit funny now, and they liked it even more.",
        ),
    ),
    ("it is best to tell the truth", "saying sorry makes things better", "a true friend can forgive"),
)

SHARING = Plot(
    (
        (
            "One {weather} {time}, {hero} walked {place.to} with {food.a} for lunch.",
            "{hero.His} {elder} gave {hero} {food.a}, and {hero} went {place.to} to eat it.",
        ),
        (
            'There {hero.he} met {friend}. {friend} was {friend.kind} and looked very sad. "I am so hungry," said {friend}.|',
            'On the way, {hero.he} met {friend.kind}. "My name is {friend}," said the {friend.species}. "I have had nothing to eat today."|',
        ),
        (
            "{hero} looked at the {food}. {hero.He} was hungry too. {hero.He} thought for a moment.",
            "{hero} wanted to eat all of the {food}. But then {hero.he} saw the sad eyes of {friend}.",
        ),
        (
            '"Here, we can share," said {hero}, and gave half of the {food} to {friend}.',
            '"Half for you, and half for me," said {hero} and sat down next to {friend}.',
        ),
        (
            'They ate together. "That was the best lunch of my life," said {friend}.',
            '{friend} ate and smiled. "You are very kind," {friend.he} said.',
        ),
        (
            "|The next day it rained, and {hero} lost the way home. Then {hero.he} heard a voice. It was {friend}! {friend} took {hero.him} by the hand and showed {hero.him} the way.",
            '|A week later, {hero} had nothing to eat. Then {friend} came with a full basket. "Now it is my turn to share," {friend.he} said.',
            "|The next {time}, there was a present at the door. It was {thing.a}, and a note that said: thank you, from {friend}.",
        ),
    ),
    (
        "when you share, you get a friend",
        "kindness comes back to you",
        "half is enough when you eat with a friend",
    ),
)

FEAR = Plot(
    (
        (
            "{hero} liked many things, but {hero.he} was afraid of {fear}.",
            "There was only one problem. {hero} was afraid of {fear}.",
        ),
        (
            'One {time}, {friend}, {friend.kind}, came to {hero}. {friend.He} had left {thing.a} far away. "To get it back, we must {dare}," said {friend}.|',
            "{hero} had a friend named {friend}, {friend.kind}. One {time}, {friend} lost {thing.a}. To get it back, they had to {dare}.|",
        ),
        (
            '"I can not do it," said {hero}. {hero.His} legs were shaking.',
            "{hero} took one step and stopped. {hero.His} heart beat fast.",
        ),
        (
            '"Hold my hand," said {friend}. "We will go slowly." They counted to three.',
            '"I am afraid sometimes too," said {friend}. "It helps to sing a song." So they sang.',
        ),
        (
            "|{hero} closed {hero.his} eyes, then {hero.he} opened them again. {relief.Capital}! It was not so bad.",
            "|Step by step, {hero} went on. And look, {relief}! {hero} began to smile.",
        ),
        (
            '"I did it!" {hero} called. {friend} had {thing.the} again, and {hero} was not afraid any more.',
            'Soon it was done. {friend} held {thing.the} and said, "You are the bravest {hero.species} I know."',
        ),
    ),
    (
        "being brave means to try even when you are afraid",
        "fear gets small when you look at it",
        "a friend makes you brave",
    ),
)

BUILD = Plot(
    (
        (
            "One {weather} {time}, {hero} wanted to build {building} {place.at}. {friend}, {friend.kind}, came to help.",
            '"Let us build {building}!" said {hero} to {friend}. {friend} was {friend.kind} who liked to make things. They went {place.to}.',
        ),
        (
            "They made it out of {weak}, because that was quick and easy.|",
            'They found a lot of {weak}. "This is easy," said {friend}, and soon they were done.|',
        ),
        (
            "Then the wind began to blow. It blew harder and harder, until everything fell down.",
            "But that night it rained and rained. In the morning there was nothing left.",
        ),
        (
            '"All our work is gone," said {hero} and sat down. "We can try again," said {friend}.',
            '{friend} wanted to give up. "No," said {hero}. "Now we know what went wrong."',
        ),
        (
            "|This time they built it out of {strong}. It was hard work, and it took them three days.",
            "|They carried {strong} from far away and built it again. It was slow, but they helped each other.",
        ),
        (
            "A big storm came, but now nothing fell down. {hero} put {thing.a} on top and was proud.",
            "A week later, it still stood there. {hero} had {thing.a} with {hero.him}, and they played next to it.",
            'Then a bird came and made its nest on top. "Now it is a home too," said {friend}.',
        ),
    ),
    ("good work takes time", "you can always try again", "the quick way is not always the best way"),
)
