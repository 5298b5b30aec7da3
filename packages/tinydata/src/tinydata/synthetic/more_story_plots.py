# ruff: noqa: E501 - as in story_plots
"""The second half of the plots; `story_plots` explains the form."""

from __future__ import annotations

from tinydata.synthetic.story_plots import BROKEN, BUILD, FEAR, LOST, SHARING, STUCK, Plot

LOST_BABY = Plot(
    (
        (
            "One {weather} {time}, {hero} walked {place.to}. {spot.Capital}, {hero.he} saw a little {baby}. It was all alone.",
            "One {time}, {hero} was {place.at} when {hero.he} heard a small cry. {spot.Capital} sat a {baby}.",
        ),
        (
            '"Where is your mother?" asked {hero}. The {baby} only looked at {hero.him} with big eyes.|',
            '"Are you lost?" asked {hero}. The {baby} came close and shook.|',
        ),
        (
            "{hero} put the {baby} in {hero.his} arms to keep it warm. Then {hero.he} met {friend}, {friend.kind}.",
            "{hero} gave the {baby} some water. {friend}, {friend.kind}, came to see what was going on.",
        ),
        (
            '"I saw a {mother} over there, {last_spot}," said {friend}. "Let us go and look."',
            '"We must find its mother," said {friend}. "It must be a {mother}. Come with me!"',
        ),
        (
            "They looked {other_spot}, but no {mother} was there. They called, but nobody came.",
            "They walked for a long time. The {baby} fell asleep in the arms of {hero}.",
        ),
        (
            "|Then they heard {call}. It was the {mother}! The {baby} ran to its mother as fast as it could.",
            "|Suddenly there was {call}. The {mother} had looked for the {baby} all day. Now they were together again.",
        ),
        (
            '"I will miss you," said {hero} to the {baby}. But {hero.he} was glad.',
            "Every week after that, {hero} and {friend} went to see the {baby}, and it grew and grew.",
        ),
    ),
    ("everyone needs a home", "small ones need our help", "helping others makes you happy"),
)

RACE = Plot(
    (
        (
            '"I am faster than you," said {friend}, {friend.kind}. "Let us race to {landmark}!" said {hero}.',
            "One {weather} {time}, {hero} and {friend} wanted to know who was faster. {friend} was {friend.kind} with quick feet. They would race to {landmark}.",
        ),
        (
            "The winner would get {thing.a}. One, two, three, go!|",
            '{hero.His} {elder} held up {thing.a}. "This is for the winner," {elder.he} said. "Ready, steady, go!"|',
        ),
        (
            "At first {friend} was far ahead. {hero} ran and ran, but {hero.he} was slow.",
            "{friend} ran like the wind. {hero} was soon far behind.",
        ),
        (
            'But {friend} thought, "I have so much time." {friend.He} sat down {spot} and fell asleep. {hero} did not stop. Step by step, {hero.he} came to {landmark} first.',
            'Then {friend} fell and hurt {friend.his} foot. {hero} could win now! But {hero.he} stopped. "Are you all right?" {hero.he} asked. {hero} helped {friend} up, and they walked to {landmark} together.',
            "Then {friend} stopped to look at {friend.his} own shadow and took the wrong path. {hero} was slow, but {hero.he} knew the way, and {hero.he} was the first at {landmark}.",
        ),
        (
            '|"You should have {thing.the}," said {friend}. "You did very well." But {hero} said, "Let us share it."',
            "|{hero} got {thing.the}, and everyone clapped. {friend} clapped the loudest.",
        ),
    ),
    (
        "slow and steady is a good way to go",
        "a friend is more than a prize",
        "it is not all about being first",
    ),
)

NOISE = Plot(
    (
        (
            "One night, {hero} was in bed with {thing.a} in {hero.his} arms. Then {hero.he} heard {noise} {where}.",
            "It was late, and the moon was up. {hero} held {thing.a} tight. There was {noise} {where}!",
        ),
        (
            '"It is a monster," thought {hero}, and pulled the blanket over {hero.his} head.|',
            '"Who is there?" asked {hero}. Nobody answered.|',
        ),
        (
            'The sound did not stop. {hero} called {hero.his} {elder}. "There are no monsters," {elder.he} said. "Let us look together."',
            '{hero} woke up {hero.his} {elder}. "Did you hear that?" {hero.he} asked. "Yes," said {hero.his} {elder}. "Come, we will find out."',
        ),
        (
            "They took a lamp and went very slowly. One step. Two steps. Three steps.",
            "{hero} was still afraid, but {hero.he} took the hand of {hero.his} {elder}, and they walked on.",
        ),
        (
            "|And what did they see? It was only {cause}! {hero} laughed and laughed.",
            '|Then the light fell on it. It was {cause}. "Oh!" said {hero}. "That is not a monster at all."',
        ),
        (
            'The next day, {hero} told {friend} about it. {friend}, {friend.kind}, said, "I would have run away!"',
            '"Good night," said {hero.his} {elder}. "Good night," said {hero}, and slept until the morning. {friend}, {friend.kind} next door, had slept all night.',
        ),
    ),
    (
        "things look bigger in the dark",
        "it is good to look before you run",
        "you can ask someone to look with you",
    ),
    ends_at_home=True,
)

SEED = Plot(
    (
        (
            'In spring, {hero.his} {elder} gave {hero} a tiny seed. "One day this will be a {plant}," {elder.he} said.',
            "One {weather} {time}, {hero} found a tiny seed {spot}. {hero.His} {elder} said it was the seed of a {plant}.",
        ),
        (
            "{hero} put the seed into the ground and gave it water.|",
            "{hero} dug a little hole, put the seed inside, and covered it with earth.|",
        ),
        (
            'The next day, {hero} looked. Nothing. The day after, {hero.he} looked again. Nothing. "It does not work," said {hero}.',
            "{hero} waited one day, two days, three days. The ground was still brown. {hero} was not happy.",
        ),
        (
            '{friend}, {friend.kind}, looked over the fence. "You must wait," said {friend}. "A seed needs water, sun and time."',
            '"Dig it up and look!" said {friend}, {friend.kind}. "No," said {hero}. "I will wait and give it water."',
        ),
        (
            "|Then, one morning, there was something small and green. It grew a little every day, and in summer the {plant} was {size}.",
            "|After two weeks of water and sun, a green leaf came out. In summer, the {plant} stood there, {size}.",
        ),
        (
            "{hero} and {friend} sat next to it and looked up at the sky.",
            '{hero} was so proud. "Look what a tiny seed can do," {hero.he} said to {friend}.',
        ),
    ),
    ("good things need time", "if you wait and work, things will grow", "big things start small"),
    ends_at_home=True,
)

GIFT = Plot(
    (
        (
            "Tomorrow was the birthday of {hero.his} {elder}. {hero} wanted to give {elder.him} something special.",
            "{hero} loved {hero.his} {elder} and wanted to make {elder.him} happy. {elder.His} birthday was near.",
        ),
        (
            "In the shop {hero.he} saw {thing.a}. But {hero} had no money.|",
            "{hero} counted {hero.his} coins. It was not enough for {thing.a} in the shop.|",
        ),
        (
            'Sadly, {hero} went {place.to}. There was {friend}, {friend.kind}. "Why do you need money?" asked {friend}. "You can make something."',
            '"What can I do?" {hero} asked {friend}. {friend} was {friend.kind} and thought about it. "You can make a present with your own hands," {friend.he} said.',
        ),
        (
            "So {hero} worked all day. The first try went wrong. The second try was better. In the evening, {gift} was ready.",
            "{hero} ran home and began at once. {friend} helped {hero.him}. It was not easy, but they made {gift}.",
        ),
        (
            '|In the morning, {hero.his} {elder} saw the present: {gift}! "This is the best present I ever got," {elder.he} said, and gave {hero} a big hug.',
            '|"Happy birthday!" said {hero}. {hero.His} {elder} was quiet for a moment. Then {elder.he} smiled. "For me? {gift.Capital}! I love it."',
        ),
        (
            "They had cake, and {friend} got the biggest piece.",
            'Then the door opened. {friend} was there with {thing.the}. "I got it for you," {friend.he} said to {hero}. "You work so hard for others."',
        ),
    ),
    (
        "the best gifts come from the heart",
        "love is not a thing you buy",
        "what you make yourself is special",
    ),
    ends_at_home=True,
)

TURNS = Plot(
    (
        (
            "One {weather} {time}, {hero} and {friend} were {place.at}. {friend} was {friend.kind}. They found {thing.a} {spot}.",
            "{hero} met {friend}, {friend.kind}, {place.at}. They both saw {thing.a} {spot}.",
        ),
        (
            '"It is mine!" said {hero}. "No, I saw it first!" said {friend}.|',
            'Both of them took hold of it. "Let go!" said {friend}. "No, you let go!" said {hero}.|',
        ),
        (
            "They pulled and pulled, and they both fell into the mud.",
            "They were so loud that the birds flew away. Nobody played, and nobody was happy.",
        ),
        (
            'For a while they did not talk. Then {hero} said, "What if we take turns?"',
            '{friend} looked at {hero}. {hero} looked at {friend}. "This is silly," said {friend}. "We can play together."',
        ),
        (
            "|So first {hero} had {thing.the}, and {friend} counted to ten. Then {friend} had it, and {hero} counted to ten.",
            "|They made a new game with {thing.the}, and the game was only fun for two.",
            '|Just then {hero}\'s {elder} came by. "You found my {thing.noun}!" {elder.he} said. "You can both have a turn." They laughed about it.',
        ),
    ),
    (
        "taking turns is more fun than fighting",
        "a thing is nothing without a friend to play with",
        "sharing is better than winning",
    ),
)

SKILL = Plot(
    (
        (
            "More than anything, {hero} wanted to learn to {skill}.",
            '"When I am big, I want to {skill}," said {hero}. "Why wait?" said {hero.his} {elder}.',
        ),
        (
            "One {weather} {time}, {hero.he} tried it for the first time. It went wrong at once.|",
            "{hero} went out and tried. {hero.He} tried again. It did not work at all.|",
        ),
        (
            '{friend}, {friend.kind}, saw it. "I can show you," said {friend}. "But you must practice every day."',
            '"Do not laugh at me," said {hero} to {friend}. But {friend}, {friend.kind}, did not laugh. "I was bad at it too," {friend.he} said.',
        ),
        (
            "On Monday it was hard. On Tuesday it was still hard. On Wednesday it was a little better.",
            "Every day, {hero} practiced after school. Some days were good, and some days were bad.",
            '{hero} wanted to give up many times. But {hero.his} {elder} said, "One more try."',
        ),
        (
            "|And then, one day, {hero} {success}! {friend} clapped and cheered.",
            "|At last the big day came. Everybody looked. {hero} took a deep breath and {success}.",
        ),
        (
            '"Will you teach me now?" asked a small voice. It was a tiny mouse. {hero} smiled. "Of course," {hero.he} said.',
            '"You did not give up," said {hero.his} {elder} and gave {hero.him} {thing.a}.',
        ),
    ),
    ("practice makes you better every day", "nobody is good at the first try", "you can learn hard things"),
)

RAIN = Plot(
    (
        (
            "{hero} and {friend} wanted to {plan}. {friend} was {friend.kind}. They had waited for it all week.",
            '"Tomorrow we will {plan}!" said {hero} to {friend}, {friend.kind}. {hero} was so happy that {hero.he} could not sleep.',
        ),
        (
            "But when the day came, dark clouds came too. It rained and rained.|",
            "But in the morning the sky was gray, and rain fell on the roof.|",
        ),
        (
            '"Our day is ruined," said {hero}. {hero.He} looked out of the window and held {thing.a}.',
            '{hero} kicked {thing.a} across the room. "I hate rain," {hero.he} said.',
        ),
        (
            '"We can not stop the rain," said {friend}, "but we can have fun inside."',
            'Then {hero.his} {elder} had an idea. "A rainy day is a day for new games," {elder.he} said.',
        ),
        (
            "|So they {indoor}. They laughed so much that they forgot the rain.",
            "|They {indoor}, and {hero.his} {elder} helped them. It was more fun than they had thought.",
        ),
        (
            'When the sun came out, {hero} did not even look up. "Can it rain tomorrow too?" {hero.he} asked.',
            'In the evening there was a rainbow over the house. "What a wonderful day," said {friend}.',
        ),
    ),
    (
        "a bad day can turn into a good one",
        "fun is where your friends are",
        "a new plan can be a better plan",
    ),
    ends_at_home=True,
)

PLOTS = (
    LOST, STUCK, BROKEN, SHARING, FEAR, BUILD, LOST_BABY, RACE, NOISE, SEED, GIFT, TURNS, SKILL, RAIN,
)  # fmt: skip
