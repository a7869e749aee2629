from diffscope.cli import main

main()
