"""The controlled vocabulary of the stories: who, where, what. A few hundred common words together with the plots.

No noun or adjective starts with a silent h or a vowel letter that sounds like a consonant, so that "a" or "an"
follows from the first letter.
"""

from __future__ import annotations

GIRLS = (
    "Lily", "Mia", "Anna", "Sara", "Emma", "Rosa", "Nina", "Ella", "Zoe", "Lucy", "Ruby", "Clara", "Ivy", "Nora", "Eva",
)  # fmt: skip
BOYS = (
    "Tom", "Ben", "Max", "Leo", "Sam", "Tim", "Jack", "Omar", "Finn", "Noah", "Hugo", "Ali", "Dan", "Luis", "Pete",
)  # fmt: skip

ANIMALS = (
    "rabbit",
    "fox",
    "bear",
    "mouse",
    "cat",
    "dog",
    "duck",
    "frog",
    "owl",
    "squirrel",
    "hedgehog",
    "turtle",
)
SIZES = ("little", "small", "young", "tiny")
TRAITS = ("kind", "brave", "shy", "happy", "curious", "clever", "quiet", "cheerful", "gentle", "funny")

# Word, and whether she or he.
FAMILY = (
    ("mother", "she"),
    ("father", "he"),
    ("grandmother", "she"),
    ("grandfather", "he"),
    ("aunt", "she"),
    ("uncle", "he"),
)

HOMES = (
    "in a small house near the forest",
    "in a yellow house on a hill",
    "on a farm by the river",
    "in a little town by the sea",
    "at the end of a long road",
    "in a warm house with a green door",
    "next to a big garden",
    "in a village between two hills",
)

# With the preposition for being there; going there is always "to".
PLACES = (
    ("in", "the park"),
    ("at", "the beach"),
    ("by", "the river"),
    ("on", "the hill"),
    ("in", "the garden"),
    ("in", "the forest"),
    ("by", "the lake"),
    ("in", "the field"),
    ("at", "the farm"),
    ("in", "the meadow"),
)

WEATHERS = ("sunny", "warm", "bright", "cool", "windy", "quiet", "cloudy", "lovely")
TIMES = ("morning", "afternoon", "day")

COLOURS = (
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "white",
    "purple",
    "old",
    "new",
    "shiny",
    "little",
    "pretty",
)
TOYS = (
    "ball",
    "kite",
    "doll",
    "drum",
    "toy boat",
    "toy car",
    "hat",
    "scarf",
    "book",
    "bell",
    "basket",
    "toy train",
)
LIGHT_TOYS = ("ball", "kite", "hat", "scarf", "paper plane", "balloon", "paper bird")

FOODS = (
    ("a piece of bread", "bread"),
    ("a sweet apple", "apple"),
    ("a big cookie", "cookie"),
    ("a slice of cake", "cake"),
    ("a ripe pear", "pear"),
    ("a cheese sandwich", "sandwich"),
    ("a bag of nuts", "nuts"),
    ("a bowl of berries", "berries"),
)

SPOTS = (
    "under a bench",
    "behind a big rock",
    "in the tall grass",
    "under an old tree",
    "behind the fence",
    "under a pile of leaves",
    "next to a bush",
    "inside an empty box",
    "near a puddle",
    "behind a wooden gate",
)

HIGH_SPOTS = ("on a high branch", "on the roof of a shed", "on top of a tall wall", "in the top of a tree")
REACHING_TOOLS = ("a long stick", "a ladder", "a strong rope", "a tall chair")

# What is feared, what must be done, and how it turns out to be.
FEARS = (
    ("the dark", "walk through the dark woods", "the woods were only full of sleeping birds"),
    ("deep water", "cross the stream", "the water only came up to the knees"),
    ("high places", "cross the high bridge", "the bridge was wide and strong"),
    ("big dogs", "walk past the big dog at the farm", "the big dog only wanted to play"),
    ("cows", "walk across the field of the cows", "the cows only looked up and ate grass"),
    ("caves", "look inside the old cave", "the cave was dry and full of light"),
)

BUILDINGS = ("a tower", "a little house", "a bridge", "a castle", "a fort")
WEAK_MATERIALS = ("sand", "straw", "leaves", "paper", "mud")
STRONG_MATERIALS = ("stones", "wood", "bricks", "heavy logs")

BABIES = (
    ("kitten", "cat", "a soft meow"),
    ("duckling", "duck", "a loud quack"),
    ("puppy", "dog", "a happy bark"),
    ("lamb", "sheep", "a gentle sound"),
    ("chick", "hen", "a busy cluck"),
)

LANDMARKS = ("the big oak tree", "the old bridge", "the red barn", "the stone well", "the wooden gate")

# What the noise was, and where it came from.
NOISES = (
    ("a tapping sound", "at the window", "a branch that moved in the wind"),
    ("a scratching sound", "behind the door", "a lost kitten that wanted to come in"),
    ("a strange song", "in the garden", "a little bird that sang to the moon"),
    ("a soft knocking sound", "under the bed", "a mouse that carried a nut"),
    ("a rolling sound", "on the stairs", "a ball that the cat had pushed"),
)

SEEDS = (
    ("sunflower", "as tall as a door"),
    ("pumpkin", "as big as a chair"),
    ("tomato plant", "full of red tomatoes"),
    ("rose", "as red as the evening sun"),
    ("bean plant", "as high as the roof"),
)

GIFTS = (
    "a card with a big heart",
    "a crown of flowers",
    "a picture of the family",
    "a necklace of shells",
    "a song",
)

SKILLS = (
    ("swim", "swam across the pond"),
    ("ride a bike", "rode all the way to the gate"),
    ("skate", "skated in a big circle"),
    ("whistle", "whistled a long tune"),
    ("fly a kite", "flew the kite above the trees"),
    ("climb a rope", "climbed to the very top"),
    ("juggle", "juggled three stones at once"),
)

OUTDOOR_PLANS = (
    "have a picnic by the lake",
    "fly kites on the hill",
    "look for shells at the beach",
    "ride to the market",
    "play in the meadow",
    "go for a long walk in the forest",
)
INDOOR_PLANS = (
    "made a tent out of blankets",
    "baked a warm cake",
    "put on a funny show",
    "drew a map of a magic island",
    "built a ship out of chairs",
)
