"""English prose for measurements, so that a benchmark needs no file."""

TEXTS = (
    "The ferry left the harbour a little after six, when the fog had begun to lift from the water. Most of the "
    "passengers stayed inside, "
    "holding paper cups of coffee and watching the grey line of the coast grow thin behind them. A girl in a yellow "
    "coat stood alone at the "
    "rail and counted the gulls that followed the ship.",
    "Bread is made from four things: flour, water, salt and yeast. The yeast eats the sugar in the flour and gives "
    "off gas, which is caught "
    "in the dough and makes it rise. A slow rise in a cold room takes a whole night, but it gives the loaf a better "
    "taste than a quick one "
    "beside the oven.",
    "A river does not flow at the same speed everywhere. Near the banks and the bed, friction holds the water back, "
    "so the fastest current "
    "is found in the middle, just below the surface. In a bend the fast water swings to the outside and cuts into the "
    "bank there, while sand "
    "and gravel settle on the inside.",
    "When the old library was closed for repairs, its books were packed into nine hundred boxes and carried to an "
    "empty school. It took the "
    "staff three weeks to put them on shelves again. For two years people borrowed novels in a room where children "
    "had once learned to "
    "multiply, and some of them said that they would miss it.",
    "The moon goes round the earth in about twenty-seven days and always shows the same side. This is no accident: "
    "the pull of the earth has "
    "slowed the turning of the moon until one turn takes exactly as long as one journey. The tides that the moon "
    "raises in our seas slow "
    "the earth as well, though far less.",
)
