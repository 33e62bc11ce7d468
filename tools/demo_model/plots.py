"""The text of the story grammar: who there is, how a story opens, and what can happen.

Notation: a `|` separates alternatives. In a choice, `trouble / help` names two slots that are drawn together, so that
the cure fits the harm; in a beat, `{slot}` is replaced by what was drawn. Whatever can follow "a" starts with a
consonant, so that no article ever has to change.
"""

from __future__ import annotations

from typing import NamedTuple


class Plot(NamedTuple):
    """What happens after the opening: slots to draw once per story, and the beats that tell it, one draw of each."""

    choices: dict[str, str]
    beats: tuple[str, ...]


GIRLS = "Mia | Lily | Anna | Rosa | Ella | Nora | Ruby | Zoe | Clara | Daisy | Emma | Ivy | Lucy | Maya | Tina | Vera"
BOYS = "Tom | Ben | Max | Sam | Leo | Finn | Oscar | Jack | Hugo | Toby | Bob | Emil | Noah | Paul | Tim | Will"
CHILDREN = {"she": "girl", "he": "boy"}
ANIMALS = "fox | rabbit | bear | mouse | hedgehog | squirrel | duck | cat | badger"

SETTING = {
    "trait": "kind | curious | brave | cheerful | quiet | clever | gentle | shy | little",
    "hobby": "sing | paint | climb trees | count the stars | read books | collect stones | dance | tell jokes",
    "home": "in a small house by the sea | in a village near the forest | in a cottage on a hill"
    " | in a mill by the river | on a farm | in a tall house in the town",
    "relative": "mother | father | grandmother | grandfather",
    "daytime": "morning | afternoon | day",
    "weather": "sunny | warm | cold | foggy | bright | snowy",
}

OPENINGS = (
    "Once upon a time, there was a {trait} {kind} named {hero}. {He} lived {home}."
    " | Once upon a time, there was a {trait} {kind} named {hero} who loved to {hobby}."
    " | Once upon a time, a {trait} {kind} named {hero} lived {home}. {He} loved to {hobby}."
    " | There once was a {trait} {kind} named {hero}, who lived {home}."
    " | Long ago, a {trait} {kind} named {hero} lived {home}."
    " | Far away, {home}, there lived a {trait} {kind} named {hero}."
    " | This is the story of {hero}, a {trait} {kind} who loved to {hobby}."
    " | The youngest {kind} in the village was named {hero}. {He} was {trait} and loved to {hobby}."
    " | {hero} was a {trait} {kind} who loved to {hobby}."
)

WIND = Plot(
    choices={
        "colour": "red | blue | green | yellow | white | purple",
        "thing": "kite | hat | scarf | ribbon | balloon | flag",
        "place": "to the meadow | to the beach | to the park | to the market | up the hill",
        "near": "under the bushes | behind the rocks | between the flowers | in the tall grass",
        "far": "along the path | by the well | beside the stone wall | on the bridge",
        "spot / fetch": "high in a pear tree / climbed up and brought it down"
        " | on the roof of the barn / fetched a ladder and brought it down"
        " | in the middle of the pond / made a raft and pulled it out of the water"
        " | under a thorny bush / crawled under the branches and pulled it out",
    },
    beats=(
        "One windy {daytime}, {hero} took {his} {colour} {thing} {place}."
        " | One windy {daytime}, {hero} went {place} with {his} new {colour} {thing}.",
        "Suddenly a strong gust came and blew the {thing} away."
        " | The wind grew stronger and stronger, and it carried the {thing} up into the sky.",
        "{He} ran after it, but the wind was too fast."
        " | {He} jumped as high as {he} could, but {he} could not catch it.",
        "{hero} sat down on a stone and began to cry. | {hero} was very sad.",
        '"Why are you so sad?" asked {friend} the {friend_kind}.'
        ' | Then {friend} the {friend_kind} came by. "What is wrong?" asked {friend}.',
        '"The wind took my {colour} {thing}," said {hero}. | "I have lost my {thing}," said {hero}.',
        '"Do not cry," said {friend}. "We will look for it together."'
        ' | "Four eyes see more than two," said {friend}, and they set off.',
        "They looked {near} and {far}, but they could not find it.",
        "At last they saw the {thing} {spot}. {friend} {fetch}."
        " | Just when they wanted to give up, they found the {thing} {spot}. {friend} {fetch}.",
        "{hero} was so happy that {he} danced."
        ' | "Thank you, {friend}!" said {hero}, and {he} gave {friend_him} a big hug.',
        "From that day on, {hero} and {friend} were the best of friends."
        " | After that, {hero} always held {his} {thing} tightly when the wind blew."
        " | {hero} was glad to have the {thing} again, but even more glad to have a friend.",
    ),
)

RESCUE = Plot(
    choices={
        "wood": "through the forest | along the river | over the fields | by the lake",
        "creature": "bird | kitten | frog | lamb | turtle | puppy",
        "trouble / help": "Its foot was caught in a net / cut the net with a sharp stone"
        " | It was stuck in the deep mud / pulled it out with a long branch"
        " | It had fallen into a hole / let down a rope and lifted it out"
        " | It was wet and cold / dried it and wrapped it in a warm scarf"
        " | Its leg was hurt / tied a soft leaf around its leg",
        "accident / repay": "{hero} lost {his} way in the fog / led {him} safely home"
        " | {hero} dropped {his} key in the long grass / searched until the key was found"
        " | deep snow covered the path, and {hero} could not find {his} house / showed {him} the way home"
        " | the old bridge broke, and {hero} could not cross the stream / showed {him} another way across",
    },
    beats=(
        "One {weather} {daytime}, {hero} went for a walk {wood}. | One {weather} {daytime}, {hero} was walking {wood}.",
        'Suddenly {he} heard a small voice. "Help! Help!" | {He} stopped, for somebody was crying.',
        "It was a little {creature}. {trouble}. | Behind a big rock {he} found a little {creature}. {trouble}.",
        '"Do not be afraid," said {hero}. "I will help you."',
        "{He} {help}. | Very gently, {he} {help}.",
        '"Thank you," said the {creature}. "I will never forget this."',
        "Some days later, {accident}. | A week later, {accident}.",
        "But the {creature} heard {him} calling and {repay}. | Then the {creature} came and {repay}.",
        '"You helped me, and now I help you," said the {creature}.',
        "{hero} learned that a kind deed always comes back."
        " | From that day on, {hero} and the {creature} met every morning.",
    ),
)

RAIN = Plot(
    choices={
        "outdoor": "fly a kite | swim in the lake | play in the garden | pick berries",
        "game / fun": "build a castle"
        " / They took all the blankets and pillows and built a castle as high as the table"
        " | bake a cake / They mixed flour, eggs and honey and baked a sweet cake"
        " | put on a play / They made crowns out of paper and played king and queen"
        " | paint a picture / They took out the paints and painted a picture of the sea"
        " | make music / They played on pots and pans and sang every song they knew"
        " | make boats / They folded boats out of paper and sailed them across the kitchen floor",
        "view": "hill | roofs | river | trees",
    },
    beats=(
        "One {daytime}, {hero} wanted to {outdoor}, but dark clouds covered the sky.",
        "Soon the rain began to fall, and {he} had to stay in the house."
        " | Then it began to rain, and the rain did not stop.",
        '"What a boring day," said {hero}. | {hero} looked out of the window and felt sad.',
        "There was a knock at the door. It was {friend} the {friend_kind}, wet from head to toe.",
        '"I have an idea," said {friend}. "Let us {game}!" | "We can {game}!" said {friend}.',
        "{fun}.",
        "They laughed so much that they forgot the rain. | It was so much fun that nobody thought of the rain.",
        "When the rain stopped, a rainbow stood over the {view}.",
        '"Rainy days are good days too," said {hero}. | After that, {hero} was never sad about the rain again.'
        " | {hero} and {friend} looked at it and smiled.",
    ),
)

SHARE = Plot(
    choices={
        "food": "basket of apples | loaf of warm bread | bowl of berries | bag of nuts | jar of honey"
        " | plate of pancakes",
        "tree": "willow tree | cherry tree | pine tree",
        "gift": "pot of hot soup | bunch of flowers | big round cheese | cup of sweet tea",
    },
    beats=(
        "One {weather} {daytime}, {his} {relative} gave {hero} a {food}."
        " | One {weather} {daytime}, {hero} sat down with a {food}.",
        "{friend} the {friend_kind} came by and looked very hungry.",
        '"May I have a little?" asked {friend}.',
        '"No," said {hero}. "It is all mine." | "No, I want everything for myself," said {hero}.',
        "{friend} went away with {friend_his} head down. | So {friend} went away without a word.",
        "{hero} began to eat, but {he} felt lonely, and nothing tasted good.",
        'So {he} ran after {friend}. "I am sorry," {he} said. "Please come and eat with me."',
        "They sat under a {tree} and shared the {food}. | They shared the {food} under a {tree}.",
        "The next day, {friend} came with a {gift}, and they shared it too."
        " | The next day, {friend} brought {hero} a {gift}.",
        "{hero} learned that food tastes better when you share it."
        " | From that day on, {hero} always shared with {his} friends.",
    ),
)

BUILD = Plot(
    choices={
        "project / use / fault / fix / joy": "boat / sail across the pond / it filled with water and sank"
        " / closed every hole with wax / sailed across the pond and back"
        " | swing / hang it in the old tree / the rope broke / found a stronger rope / flew up high into the air"
        " | cart / bring wood home / a wheel came off / made a new wheel / brought home all the wood"
        " | birdhouse / give the birds a home / the roof fell off / used longer nails"
        " / watched the birds move in"
        " | bridge / cross the stream / it fell into the water / used heavy stones and longer boards"
        " / walked across with dry feet",
    },
    beats=(
        "One {weather} {daytime}, {hero} decided to build a {project}. {He} wanted to {use}.",
        "{He} worked for hours with a hammer and a saw. | {He} worked until the sun went down.",
        "But when {he} tried the {project}, {fault}.",
        '"I will never get it right," said {hero}. | {hero} was so angry that {he} threw down {his} hammer.',
        '{His} {relative} smiled and said, "Everybody makes mistakes. Try again."'
        ' | "Do not give up," said {his} {relative}. "Let us look at it together."',
        "So they {fix}. | They thought about it, and then they {fix}.",
        "This time the {project} was strong and good.",
        "{hero} laughed with joy and {joy}. | Full of joy, {hero} {joy}.",
        '"I am glad that I tried again," said {hero}.'
        " | {hero} learned that mistakes can be the best teachers."
        ' | "We did it!" said {hero}, and {he} gave {his} {relative} a big hug.',
    ),
)

NIGHT = Plot(
    choices={
        "night": "dark | stormy | cold | long",
        "noise / source / after": "a scratching sound at the door / a lost kitten"
        " / {He} gave it some milk and let it sleep by the fire"
        " | a tapping sound at the window / a branch of the pear tree, moving in the wind"
        " / {He} closed the curtain and went back to bed"
        " | a strange song from the roof / a white owl / {He} listened until the song was over"
        " | a rustling sound in the kitchen / a tiny mouse with a piece of cheese"
        " / {He} gave it some bread too"
        " | a splashing sound from the garden / a fat frog in the rain barrel / {He} put it back into the pond",
        "light": "candle | lamp | lantern",
    },
    beats=(
        "One {night} night, {hero} could not sleep.",
        "{He} heard {noise}. | Then {he} heard {noise}.",
        "{His} heart beat fast, and {he} hid under the blanket.",
        '"Maybe it is a monster," {he} whispered. | "Who is there?" {he} whispered, but nobody answered.',
        "But {he} also wanted to know. {He} took a {light} and went to look."
        ' | "I must be brave," {he} thought. So {he} took a {light} and went to look.',
        "Step by step {he} came closer, and what did {he} see? It was only {source}!",
        "{hero} laughed out loud.",
        "{after}.",
        "After that night, {hero} was not afraid of the dark any more."
        " | In the morning {he} told {friend} the {friend_kind} the story, and they laughed together.",
    ),
)

BIRTHDAY = Plot(
    choices={
        "trifle": "a button | a penny | a piece of string | a feather",
        "work / the_gift / thanks": "went to the beach and made a necklace of shells / the necklace / wore it every day"
        " | took some paint and made a picture of the two friends / the picture / hung it over the bed"
        " | sat down and wrote a song / the song / sang it all day long"
        " | carved a whistle out of wood / the whistle / played it until the birds sang along"
        " | took some wool and made a warm scarf / the scarf / wore it all winter",
    },
    beats=(
        "It was the birthday of {friend} the {friend_kind}, and {hero} had no present."
        " | {friend} the {friend_kind} had a birthday, and {hero} wanted to bring a present.",
        "{He} looked in {his} pocket, but there was only {trifle}.",
        "{hero} thought and thought. Then {he} had an idea. | First {he} was sad, but then {he} had an idea.",
        "{He} {work}.",
        "In the evening {he} gave {friend} {the_gift}. | With a shy smile, {he} gave {friend} {the_gift}.",
        '"This is the best present of all," said {friend}, "because you made it yourself."',
        "{friend} {thanks}.",
        "{hero} learned that the best presents come from the heart."
        " | They ate cake together and danced until the stars came out.",
    ),
)

GARDEN = Plot(
    choices={
        "patch": "behind the house | by the gate | near the well",
        "wonder / harvest": "a pumpkin as big as a barrel / {hero} made soup for the whole village"
        " | a sunflower as tall as the roof / {hero} gave the seeds to the birds"
        " | a bush full of sweet berries / {hero} made jam for all {his} friends"
        " | a rose as red as the evening sun / {hero} gave the first flower to {his} {relative}"
        " | a bean so high that it touched the clouds / {hero} cooked beans for everybody in the street",
    },
    beats=(
        "In spring, {hero} found a small seed on the path. | In spring, {his} {relative} gave {hero} a small seed.",
        "{He} planted it {patch} and gave it water every day.",
        "But day after day nothing happened. | A week went by, but nothing happened.",
        '"It will never grow," said {hero}. | "Maybe the seed is asleep," said {hero}.',
        '"Good things take time," said {his} {relative}. | "Wait a little longer," said {friend} the {friend_kind}.',
        "Then one morning, a green leaf came out of the ground.",
        "All summer it grew and grew, until it was {wonder}.",
        "{harvest}.",
        "{hero} was proud and happy. {He} had learned to wait."
        " | And in the next spring, {hero} planted a whole garden.",
    ),
)

PLOTS = (WIND, RESCUE, RAIN, SHARE, BUILD, NIGHT, BIRTHDAY, GARDEN)
