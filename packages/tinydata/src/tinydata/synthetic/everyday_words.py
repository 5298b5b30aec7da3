"""A few words of each sort for short sentences, in English and in Spanish."""

from __future__ import annotations

from types import MappingProxyType

# Spanish nouns are masculine, so that one article and one ending do for all of them.
EVERYDAY_WORDS = MappingProxyType(
    {
        "english": {
            "animals": ("rabbit", "fox", "bear", "mouse", "cat", "dog", "duck", "frog", "owl", "turtle"),
            "traits": ("kind", "brave", "shy", "happy", "clever", "quiet", "little", "funny"),
            "places": ("river", "park", "farm", "hill", "lake", "garden", "village", "market"),
            "things": ("ball", "kite", "doll", "drum", "hat", "scarf", "book", "bell", "basket", "lamp"),
            "colours": ("red", "blue", "green", "yellow", "orange", "white", "purple", "black"),
        },
        "spanish": {
            "animals": ("conejo", "zorro", "oso", "gato", "perro", "pato", "búho", "erizo", "caballo", "burro"),
            "traits": ("bueno", "tímido", "pequeño", "listo", "tranquilo", "curioso", "divertido", "viejo"),
            "places": ("parque", "río", "lago", "jardín", "pueblo", "mercado", "bosque", "campo"),
            "things": (
                "globo",
                "tambor",
                "sombrero",
                "libro",
                "cesto",
                "zapato",
                "cuaderno",
                "barco",
                "espejo",
                "plato",
            ),
            "colours": ("rojo", "negro", "blanco", "amarillo", "morado", "dorado", "plateado", "rosado"),
        },
    }
)
