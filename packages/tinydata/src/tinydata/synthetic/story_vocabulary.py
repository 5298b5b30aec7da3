"""The words that a story may use, names among them: 716, in small letters, `s` for what stands behind an apostrophe.

Written down as a list, not derived from the plots, so that a word that slips into a plot is noticed (`story_check`).
"""

from __future__ import annotations

_LIST = """
a about above across afraid after afternoon again ahead air ali all alone along always am an and angry anna another answered
any anything apple are arms around as ask asked asleep at ate aunt away back bad bag baked ball balloon bark barn basket be
beach bean bear beat because bed before began behind being bell ben bench berries best better between big bigger biggest
bike bird birds birthday bit blanket blankets blew blow blue boat book both bowl box boy branch brave bravest bread breath
bricks bridge bright broke brown build built bush busy but buy by cake called came can car card careful carried castle cat
cave caves chair chairs cheered cheerful cheese chick circle clapped clara clever climb climbed close closed clouds cloudy
cluck coins come comes cookie cool could counted course covered cows crash cross crown cry curious dan dark day days deep
did dig dinner do does dog dogs doll done door down drew drum dry duck duckling dug each earth easy eat ella emma empty end
enough eva even evening ever every everybody everyone everything everywhere eyes fall family far farm fast faster father
favorite fear feet fell felt fence field fighting find finn first fix fixed flew flowers fly foot for forest forgive forgot
fort found fox friend friends frog from front full fun funny game games garden gate gave gentle get gets gifts girl give
glad glue go going gone good got grandfather grandmother grass gray green grew ground grow had half hand hands happened
happy hard harder hat hate have he head heads hear heard heart heavy hedgehog held help helped helping helps hen her here
hid high hill hills him his hold hole home house hug hugo hungry hurt i idea if in inside into is island it its ivy jack joy
juggle juggled jumped just keep kicked kind kindness kite kites kitten knees knew knocking know ladder lake lamb lamp landed
last late later laugh laughed leaf learn learned leaves left legs leo let life light like liked lily little lived logs long
look looked lost lot loud loudest love loved lovely lucy luis lunch made magic make makes many map market matter max me
meadow means meow met mia mine miss moment monday money monster monsters moon more morning mother mouse move moved much mud
must my name named near nearby necklace need needs nest never new next night nina no noah nobody nora not note nothing now
nut nuts oak of oh old omar on once one ones only opened orange other others our out over owl own paper park part past path
pear pete picnic picture piece pile places plan plane plant play played playing please pointed pond practice practiced
present pretty prize problem proud puddle pulled pumpkin puppy purple pushed put quack quick quiet rabbit race rain rainbow
rained rainy ran reach reached ready red ride right ripe river road rock rode rolling roof room rope rosa rose ruby ruined
run s sad sadly said sam sand sandwich sang sara sat saw say saying scarf school scratching sea second see seed shadow shake
shaking shall share sharing she shed sheep shells shiny ship shook shop should show showed shy silly sing skate skated sky
sleep sleeping slept slice slid slow slowly small smile smiled so soft some someone something sometimes song soon sorry
sound special spring squirrel stairs start steady step steps stick still stone stones stood stop stopped storm story strange
straw stream string strong stuck suddenly summer sun sunflower sunny sure swam sweet swim table take takes taking talk tall
tapping teach tell telling ten tent than thank that the them then there they thing things this thought three threw through
tied tight tim time times tiny to today together told tom tomato tomatoes tomorrow too took top tower town toy train tree
trees tried true truth try tuesday tune turn turns turtle two uncle under until up upon us use very village voice wait
waited walk walked wall want wanted warm was water way we wednesday week weeks well went were what when where while whistle
whistled white who why wide will win wind window windy winner winning with without woke wonderful wood wooden woods work
worked worry would wrong yellow yes you young your yourself zoe
"""

STORY_WORDS: frozenset[str] = frozenset(_LIST.split())
